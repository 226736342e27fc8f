"""What travels to the browser, and how often."""

import asyncio
import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from stand_ins import awaited
from test_backend import CAPACITY, Network, backend

from demo import messages
from demo.backend import Begun, LocalBackend, Note
from demo.service import Service
from demo.settings import read_comparison
from demo.viewers import RECEIPTS, WINDOW, WINDOW_BYTES, Viewers
from diffusion import DiffusionModel, Schedule
from diffusion.engine import Full
from diffusion.film import Film, Place
from diffusion.pictures import tiled

pytestmark = pytest.mark.usefixtures("in_a_hurry")


def pictures():
    return np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_faces_are_tiled_row_by_row():
    four = np.stack([np.full((2, 3, 3), i, np.uint8) for i in range(4)])
    tiles = tiled(four)
    assert tiles.shape == (4, 6, 3)
    assert [tiles[0, 0, 0], tiles[0, 3, 0], tiles[2, 0, 0], tiles[2, 3, 0]] == [0, 1, 2, 3]


def test_a_clean_picture_arrives_without_loss():
    np.testing.assert_array_equal(decode(messages.picture(pictures(), noise=0)), tiled(pictures()))


def test_equal_noise_is_equal_after_compression():
    uri = messages.picture(pictures(), noise=1.0)
    assert uri.startswith("data:image/jpeg")
    assert uri == messages.picture(pictures(), noise=1.0)


def run(service, acknowledge, watch=lambda message: None, **fields):
    """The messages of a run whose viewer answers, or not."""
    given = {"seed": "7", "faces": 4, "left_steps": "60", "right_steps": "5", **fields}

    async def look():
        received = []
        async for message in service.run(given):
            received.append(message)
            watch(message)
            if acknowledge and message.get("receipt"):
                receipt = {"run": message["run"], "number": message["number"]}
                service.viewers.acknowledge(receipt)
        return received

    return awaited(look())


def test_a_viewer_that_keeps_up_gets_every_still_once():
    service = Service(backend())
    _, start, *frames = run(service, acknowledge=True)
    assert start["panes"][1]["levels"] == [1000, 800, 600, 400, 200, 0]
    assert start["panes"][1]["noise"][0] == pytest.approx(1)
    assert start["panes"][1]["noise"][-1] == 0
    assert start["panes"][1]["kept"] == [0, 1, 2, 3, 4, 5]
    for pane, last in enumerate((60, 5)):
        sent = [s["calls"] for frame in frames for s in frame["stills"] if s["pane"] == pane]
        assert sent == list(range(last + 1))
    assert len(service.viewers) == 0


def test_a_viewer_that_is_behind_misses_frames_but_never_the_last():
    _, _, *frames = run(Service(backend()), acknowledge=False)
    assert len(frames) == WINDOW + 1
    assert frames[-1]["done"]
    assert [still["calls"] for still in frames[-1]["stills"]] == [60]
    assert frames[-1]["words"].count("calls") == 2


def test_a_lens_holds_from_the_next_frame_on_and_shows_both_panes_again():
    service = Service(backend())

    def look(message):
        if message["type"] == "frame" and message["stills"][0]["calls"] == 20:
            service.viewers.look({"run": message["run"], "lens": "eps"})

    _, _, *frames = run(service, acknowledge=True, watch=look)
    lenses = [set(s["images"]) for frame in frames for s in frame["stills"]]
    changed = lenses.index({"eps"})
    assert all(seen == {"x"} for seen in lenses[:changed])
    assert all(seen == {"eps"} for seen in lenses[changed:])
    first = next(frame for frame in frames if "eps" in frame["stills"][0]["images"])
    assert [still["calls"] for still in first["stills"]] == [21, 5]


def test_receipts_of_strangers_count_for_nothing():
    viewers = Viewers()
    with viewers.watch() as viewer:
        for _ in range(5):
            viewer.send(100)
        for receipt in (None, 3, [], {}, {"run": viewer.run}, {"run": "x", "number": 1}):
            viewers.acknowledge(receipt)
            viewers.look(receipt)
        for number in (6, -1, "1", 1.5, None):
            viewers.acknowledge({"run": viewer.run, "number": number})
        assert list(viewer.on_the_way) == [1, 2, 3, 4, 5]
        viewers.acknowledge({"run": viewer.run, "number": 4})
        viewers.acknowledge({"run": viewer.run, "number": 2})
        assert list(viewer.on_the_way) == [5]
        for lens in ("x1", None, ["x0"], "sizes"):
            viewers.look({"run": viewer.run, "lens": lens})
        assert viewer.lens == "x"


def test_a_viewer_is_behind_by_frames_or_by_bytes():
    with Viewers().watch() as viewer:
        for _ in range(WINDOW):
            assert not viewer.behind
            viewer.send(10)
        assert viewer.behind
        viewer.receive(WINDOW)
        viewer.send(WINDOW_BYTES - 1)
        assert not viewer.behind
        viewer.send(1)
        assert viewer.behind


def test_receipts_are_asked_for_often_enough_that_who_sends_them_is_never_behind():
    for size in (10, WINDOW_BYTES // 5, WINDOW_BYTES - 1):
        with Viewers().watch() as viewer:
            for number in range(1, 5 * WINDOW):
                assert not viewer.behind
                if viewer.send(size):
                    viewer.receive(number)
    with Viewers().watch() as viewer:
        assert sum(viewer.send(10) for _ in range(WINDOW)) == RECEIPTS


def test_a_failing_network_ends_in_one_sentence():
    source = backend(network := Network())
    network.forward = lambda *_: 1 / 0

    last = run(Service(source), acknowledge=True)[-1]
    assert last["type"] == "problem"
    assert last["words"] == "The run ended early (ZeroDivisionError); try it again."


class Unready(LocalBackend):
    """Tells of a line before the run, and begins anew elsewhere, or refuses."""

    full = False

    async def stream(self, comparison, alone=""):
        if self.full:
            raise Full("1 visitor waits already.")
        yield Begun((Film(60), Film(5)), self.weights, self.schedule)
        yield Place(1, 5)
        yield Note("Elsewhere, then.")
        async for event in super().stream(comparison, alone):
            yield event


@pytest.fixture
def unready():
    backend = Unready(DiffusionModel(Network(), Schedule.cosine()), CAPACITY)
    yield backend
    backend.close()


def test_a_run_is_accepted_waits_and_starts_right_before_its_first_frame(unready):
    accepted, place, note, start, *frames = run(Service(unready), acknowledge=True)
    asides = accepted, place, note
    assert {aside["type"] for aside in asides} == {"aside"}
    assert {aside["run"] for aside in asides} == {start["run"]}
    assert accepted["words"] == start["words"] == "Drawing 4 faces from seed 7."
    assert start["type"] == "start"
    assert {frame["type"] for frame in frames} == {"frame"}


def test_a_run_that_is_refused_never_starts(unready):
    unready.full = True
    [problem] = run(Service(unready), acknowledge=True)
    assert (problem["type"], problem["words"]) == ("problem", "1 visitor waits already.")


def test_no_message_equals_another_for_gradio_would_not_hand_it_on():
    asides = [messages.aside("run", "Wait.") for _ in range(2)]
    problems = [messages.problem("No.") for _ in range(2)]
    for first, second in (asides, problems):
        assert first != second
        assert {**first, "id": 0} == {**second, "id": 0}


def test_a_run_that_is_halted_ends_with_a_word_and_leaves_nothing_to_compute():
    source = backend()
    service = Service(source)

    def stop(message):
        if message["type"] == "frame":
            service.viewers.halt({"run": message["run"]})

    messages_told = run(service, acknowledge=True, watch=stop, left_steps="900")
    assert [message["type"] for message in messages_told] == ["aside", "start", "frame", "stopped"]
    assert len({message["run"] for message in messages_told}) == 1
    assert len(service.viewers) == 0
    assert source.engine.load == (0, 0)


@pytest.mark.parametrize("wish", [None, {}, {"run": "somebody else's"}, {"run": 3}])
def test_nobody_halts_a_run_whose_name_they_do_not_know(wish):
    service = Service(backend())
    told = run(service, acknowledge=True, watch=lambda message: service.viewers.halt(wish))
    assert told[-1]["done"]


def test_a_run_is_halted_while_it_waits_for_its_place():
    class Waiting:
        async def stream(self, comparison, alone=""):
            yield Place(3, 12.0)
            try:
                await asyncio.Event().wait()
            finally:
                closed.append(comparison)

    closed, service = [], Service(backend())
    service.backend = Waiting()

    async def wait():
        told = []
        comparison = read_comparison(1000)
        async for message in service.show(service.backend, comparison):
            told.append(message["type"])
            later = asyncio.get_running_loop().call_later
            later(0.05, service.viewers.halt, {"run": message["run"]})
        return told

    assert awaited(wait()) == ["aside", "stopped"]
    assert len(closed) == 1


def test_a_closed_page_leaves_no_viewer_behind():
    service = Service(backend())

    async def leave():
        stream = service.run({"left_steps": "60"})
        await anext(stream), await anext(stream)
        assert len(service.viewers) == 1
        await stream.aclose()

    awaited(leave())
    assert len(service.viewers) == 0


def test_a_browser_that_stays_behind_is_told_something_now_and_then():
    """Or Gradio would not find out that it has left, and the run would go on for nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demo.backend.INTERVAL", 1 / 30)  # so that the run takes a while
        patch.setattr("demo.service.SILENCE", 0.1)
        told = run(Service(backend()), acknowledge=False)
    kinds = [message["type"] for message in told]
    assert kinds.count("frame") == WINDOW + 1
    assert "beat" in kinds[kinds.index("frame") + WINDOW : -1]


@pytest.mark.parametrize(
    ("rate", "told"), [(4200.0, "8 s"), (600.0, "8 s"), (60.0, "70 s"), (10.0, "7 minutes")]
)
def test_the_longest_example_takes_as_long_as_it_is_computed_and_no_less_than_it_is_shown(
    rate, told, monkeypatch
):
    monkeypatch.setattr("demo.backend.INTERVAL", 1 / 30)
    machine = replace(CAPACITY, images_per_second=rate)
    *_, longest = awaited(Service(backend(capacity=machine)).examples())
    assert longest["name"] == f"DDPM 1000 (about {told})"
    assert longest["says"].endswith(f"about {told} on this machine.")


def test_a_model_with_few_levels_is_offered_the_examples_that_it_can_draw():
    source = LocalBackend(DiffusionModel(Network(), Schedule.cosine(50)), CAPACITY)
    service = Service(source)
    offered = awaited(service.examples())
    assert [example["name"] for example in offered] == [
        "Equal budget: 10 calls each",
        "η from 0 to 1",
    ]
    for example in offered:
        assert run(service, acknowledge=True, **example["fields"])[-1]["done"]
    source.close()


def test_a_press_is_heard_before_the_model_of_a_training_is_loaded():
    def gone(name):
        raise ValueError("This run is not there any more.")

    first, second = run(Service(backend(), folder=gone), acknowledge=True, model="toons")
    assert first["type"] == "heard"
    assert second["type"] == "problem"
