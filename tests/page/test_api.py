"""The page through its raw API: refusals are sentences and cost no network call."""

import base64
import io

import pytest
from gradio_client import Client
from PIL import Image

BAD = [
    (("7", 4, "0", "20", "0"), "DDPM steps is 0; choose a whole number from 1 to 1000."),
    (("7", 4, "100", "10000", "0"), "DDIM steps is 10000; choose a whole number from 1 to 1000."),
    (("7", 4, "100", "2.5", "0"), "DDIM steps is 2.5; choose a whole number from 1 to 1000."),
    (("7", 4, "100", "20", "2"), "η is 2; choose a number from 0 (DDIM) to 1 (DDPM)."),
    (("7", 4, "100", "20", "nan"), "η is nan; choose a number from 0 (DDIM) to 1 (DDPM)."),
    (("abc", 4, "100", "20", "0"), "Seed is abc; choose a whole number from 0 to"),
    (("-1", 4, "100", "20", "0"), "Seed is -1; choose a whole number from 0 to"),
    (("9" * 30, 4, "100", "20", "0"), "Seed is 999"),
    (("7", 0, "100", "20", "0"), "0 faces; choose 1, 4 or 16."),
    (("7", 10_000, "100", "20", "0"), "10000 faces; choose 1, 4 or 16."),
    (("7", None, "100", "20", "0"), "None faces; choose 1, 4 or 16."),
    (
        ("7", 4, "100", "20", "0", "euler"),
        "Left sampler is euler; choose ddpm, ddpm_large, ddim or",
    ),
    (
        ("7", 4, "9", "9", "0", "ddim", "2"),
        "Left η is 2; choose a number from 0 (DDIM) to 1 (DDPM).",
    ),
    (
        ("7", 4, "9", "9", "0", "ddpm", "0", "log"),
        "Left spacing is log; choose uniform or quadratic.",
    ),
]


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


@pytest.mark.parametrize(("fields", "sentence"), BAD)
def test_bad_input_is_refused_before_any_call(client, network, fields, sentence):
    network.calls = 0
    answer = client.predict(*fields, api_name="/compare")
    assert answer["type"] == "problem"
    assert answer["words"].startswith(sentence)
    assert network.calls == 0


def test_a_run_ends_with_its_last_frame_also_when_nobody_acknowledges(client, network):
    network.calls = 0
    messages = list(client.submit("3", 4, "40", "30", "0.5", api_name="/compare"))
    assert network.calls == 40  # both panes share a call for as long as both go on
    assert messages[-1]["done"]
    assert [still["calls"] for still in messages[-1]["stills"]] == [40, 30]
    frames = [message for message in messages if message["type"] == "frame"]
    assert len(frames) <= 14  # the window, and the last
    for still in messages[-1]["stills"]:
        kind, body = still["images"]["x"].split(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(body))).size == (128, 128)


def test_the_source_of_the_app_is_not_served(address):
    import httpx

    for path in ("gradio_api/file=app.py", "gradio_api/file=demo/page.py", "file=app.py"):
        assert httpx.get(address + path).status_code in (403, 404)
