"""Which requests the server takes."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import gradio as gr
import httpx
import pytest
from gradio.routes import App
from stand_ins import awaited

from demo import doors, keep
from demo.page import launch_options

HOME = "http://127.0.0.1:7860"
EVIL = "https://evil.example"
ASK, JOIN, UPLOAD = "component_server", "queue/join", "upload"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The server of a page with one function that a script may call."""

    def size(wish):
        return len(wish)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("sent")))
        with gr.Blocks(analytics_enabled=False) as page:
            page.asked = gr.HTML(value={}, server_functions=[size])
        page.server_name, page.max_file_size = "127.0.0.1", None
        yield App.create_app(page, app_kwargs=launch_options()["app_kwargs"])


@pytest.fixture
def page(app, monkeypatch):
    """That page, at home on this machine."""
    for variable in ("SPACE_ID", "CARTOON_HOSTS"):
        monkeypatch.delenv(variable, raising=False)
    return app.get_blocks()


class Visitor:
    """Somebody who talks to a page."""

    def __init__(self, app):
        self.asked = app.get_blocks().asked
        self.way = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method, path, **what):
        async def answer():
            async with httpx.AsyncClient(transport=self.way, base_url=HOME) as client:
                return await client.request(method, path, **what)

        return awaited(answer())

    def get(self, path, **what):
        return self.request("GET", path, **what)

    def post(self, path, **what):
        return self.request("POST", path, **what)

    def wish(self, data="wish"):
        """A question to the page's function, as JSON."""
        about = {"component_id": self.asked._id, "session_hash": "me", "fn_name": "size"}
        return json.dumps({"data": data, **about}).encode()


@pytest.fixture
def client(app, page):
    return Visitor(app)


async def in_pieces(body):
    """A body whose length is not announced."""
    for start in range(0, len(body), 2**20):
        yield body[start : start + 2**20]


def ask(client, data="wish", **headers):
    headers = {"Content-Type": "application/json", **_named(headers)}
    return client.post("/gradio_api/component_server", content=client.wish(data), headers=headers)


def send(client, content=b"pixels", **headers):
    files = {"files": ("faces.zip", content)}
    return client.post("/gradio_api/upload", files=files, headers=_named(headers))


def _named(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}


def assert_refused(answer, status):
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.endswith(".")
    assert "\n" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=https://evil.example/x.png",
        "gradio_api/file%3Dhttps://evil.example/x.png",
        "gradio_api/file/app.py",
        "gradio_api/proxy=https://somebody-page.hf.space/x",
        "gradio_api/deep_link?session_hash=me",
        "gradio_api/stream/me/0/1/playlist.m3u8",
        "file=app.py",
    ],
)
def test_what_fetches_any_address_or_writes_to_the_disk_is_closed(client, path):
    assert_refused(client.get(path), 404)


def test_no_recording_is_processed(client):
    video = {"video": ("x.mp4", b"x")}
    assert_refused(client.post("/gradio_api/process_recording", files=video), 404)


def test_the_page_and_its_questions_come_in(client):
    assert client.get("/config").status_code == 200
    assert client.get("/config", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    assert ask(client).json() == 4
    assert ask(client, Origin=HOME).json() == 4
    assert send(client, Origin=HOME).status_code == 200


def test_the_largest_picture_that_may_be_given_back_comes_in(client):
    in_base64 = "x" * (keep.MOST_BYTES * 4 // 3)
    assert ask(client, in_base64).json() == len(in_base64)


@pytest.mark.parametrize("path", [ASK, JOIN, "call/upload", "run/upload"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_question_of_seven_megabytes_is_refused(client, path, announced):
    body = client.wish("x" * 7_000_000)
    answer = client.post(
        f"/gradio_api/{path}",
        content=body if announced else in_pieces(body),
        headers={"Content-Type": "application/json"},
    )
    assert_refused(answer, 413)


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_one_file_may_have_is_refused(client, monkeypatch, announced):
    monkeypatch.setattr(doors, "MOST_UPLOADED", 100_000)
    assert send(client, bytes(90_000)).status_code == 200
    whole = httpx.Request("POST", HOME, files={"files": bytes(110_000)})
    kind, body = whole.headers["Content-Type"], whole.read()
    answer = client.post(
        "/gradio_api/upload",
        content=body if announced else in_pieces(body),
        headers={"Content-Type": kind},
    )
    assert_refused(answer, 413)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("path", [ASK, f"{ASK}/", JOIN])
def test_a_question_that_is_not_json_is_refused(client, path, kind):
    answer = client.post(
        f"/gradio_api/{path}", content=client.wish(), headers={"Content-Type": kind}
    )
    assert_refused(answer, 415)


def test_a_question_with_files_is_refused(client):
    files = {"x": ("x.png", b"pixels")}
    assert_refused(client.post("/gradio_api/component_server", files=files), 415)


def test_json_with_a_charset_is_json(client):
    assert ask(client, Content_Type="Application/JSON; charset=utf-8").json() == 4


def test_nothing_is_uploaded_to_a_disk_that_is_almost_full(client, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(doors.SPARE + 500))
    assert_refused(send(client, bytes(501)), 507)
    assert send(client, b"").status_code == 200
    assert ask(client).json() == 4


@pytest.mark.parametrize("origin", [EVIL, "http://127.0.0.1.evil.example", "null", "http://[", ""])
def test_the_page_of_another_site_may_ask_and_send_nothing(client, origin):
    assert_refused(ask(client, Origin=origin), 403)
    assert_refused(send(client, Origin=origin), 403)
    assert_refused(ask(client, Origin=origin, X_Forwarded_Host="cartoons.example"), 403)


@pytest.mark.parametrize("name", ["rebind.evil.example:7860", "evil.example", "[", ""])
def test_a_foreign_name_for_this_machine_is_refused(client, name):
    assert_refused(client.get("/config", headers={"Host": name}), 403)
    assert_refused(ask(client, Host=name, Origin=f"http://{name}"), 403)


@pytest.mark.parametrize("name", ["localhost", "localhost:7860", "127.0.0.1:80", "[::1]:7860"])
def test_this_machine_has_its_usual_names(client, name):
    assert client.get("/config", headers={"Host": name}).status_code == 200
    assert ask(client, Host=name, Origin=f"http://{name}").json() == 4


def test_a_proxy_on_this_machine_may_call_the_page_by_its_public_name(client):
    public = {"Origin": "https://cartoons.example", "X_Forwarded_Host": "cartoons.example, proxy"}
    assert ask(client, Host="127.0.0.1:7860", **public).json() == 4
    assert send(client, Host="localhost:7860", **public).status_code == 200


def test_whoever_starts_the_page_may_give_it_names(client, monkeypatch):
    monkeypatch.setenv("CARTOON_HOSTS", "Cartoons.example, blog.example")
    assert ask(client, Host="cartoons.example", Origin="https://cartoons.example").json() == 4
    assert ask(client, Host="cartoons.example", Origin="https://blog.example").json() == 4
    assert_refused(ask(client, Host="cartoons.example", Origin=EVIL), 403)
    assert_refused(ask(client, Host="evil.example"), 403)


def test_a_refusal_says_how_the_name_is_given(client):
    sentence = client.get("/", headers={"Host": "cartoons.example"}).text
    assert sentence == (
        "This page is not called cartoons.example; "
        "start it with CARTOON_HOSTS=cartoons.example if it is."
    )


def test_gradios_tunnel_is_a_name_of_the_page(client, page, monkeypatch):
    monkeypatch.setattr(page, "share_url", "https://abc123.gradio.live")
    for name in ("abc123.gradio.live", "127.0.0.1:7860"):
        assert ask(client, Host=name, Origin="https://abc123.gradio.live").json() == 4
    assert_refused(ask(client, Host="other.gradio.live"), 403)


def test_in_a_network_the_page_has_any_name_and_takes_questions_from_itself_alone(
    client, page, monkeypatch
):
    monkeypatch.setattr(page, "server_name", "0.0.0.0")
    for name in ("192.168.1.20:7860", "cartoons.lan", "localhost:7860"):
        assert client.get("/config", headers={"Host": name}).status_code == 200
        assert ask(client, Host=name, Origin=f"http://{name}").json() == 4
        assert_refused(ask(client, Host=name, Origin=EVIL), 403)
    # Gradio would let a foreign page add that header here.
    told = {"Host": "192.168.1.20:7860", "X_Forwarded_Host": "evil.example"}
    assert_refused(ask(client, Origin=EVIL, **told), 403)


def test_a_space_may_be_shown_and_asked_by_every_site(client, page, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/cartoons")
    monkeypatch.setattr(page, "server_name", "0.0.0.0")
    host = "somebody-cartoons.hf.space"
    assert (
        ask(client, Host=host, Origin=f"https://{host}", Sec_Fetch_Site="same-origin").json() == 4
    )
    assert ask(client, Host=host, Origin="https://blog.example").json() == 4
    assert_refused(client.get("/gradio_api/file=app.py", headers={"Host": host}), 404)
    assert_refused(ask(client, "x" * 7_000_000, Host=host), 413)
