"""PNGs that know how they were made, films of both panes, and pictures brought back."""

import asyncio
import base64
import io
import json
import re
import threading
import zlib
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from stand_ins import awaited, recordings_shown
from test_backend import Network, backend
from test_messages import run

from demo import keep, recorded, wording
from demo.making import Maker
from demo.reels import Reel, Reels
from demo.service import FILLED_AT_ONCE, FILMS, GIVEN_BYTES, Service
from demo.settings import read_comparison
from diffusion import Schedule
from diffusion.film import LENSES, Film, Still
from diffusion.pictures import SETTINGS_KEY

SCHEDULE = Schedule.cosine()
pytestmark = pytest.mark.usefixtures("in_a_hurry")


@pytest.fixture(scope="module")
def service():
    return Service(backend())


@pytest.fixture(scope="module")
def drawn(service):
    """The name of a finished run with DDIM at eta 0.5 on the right."""
    return run(service, acknowledge=True, right_eta="0.5")[0]["run"]


def content(file):
    return base64.b64decode(file["uri"].split(",")[1])


def saved(service, run, **wish):
    return awaited(service.keep({"run": run, "kind": "png", **wish}))


def given(service, png):
    return awaited(service.read({"png": base64.b64encode(png).decode()}))


def replayed(service, token):
    async def watch():
        return [message async for message in service.replay({"token": token})]

    return awaited(watch())


@pytest.mark.parametrize("face", [None, 2])
def test_a_png_holds_exact_faces_and_brings_every_setting_back(service, drawn, face):
    file = saved(service, drawn, face=face)
    assert file["name"] == f"cartoon-diffusion-seed-7{'' if face is None else '-face-3'}.png"
    back = given(service, content(file))
    assert back["fields"] == service.reels.get(drawn).comparison.fields()
    assert back["fields"]["right_eta"] == "0.5"
    assert (back["face"], back["words"]) == (face, wording.RESTORED)
    picture = Image.open(io.BytesIO(content(file)))
    shown = np.asarray(picture)[:: keep.ENLARGED, :: keep.ENLARGED]
    for pane, film in enumerate(service.reels.get(drawn).films):
        face_size = film.at(film.calls).x[face or 0].shape[0]
        left = pane * (shown.shape[1] - (shown.shape[1] - 4 * keep.GAP) // 2)
        expected = film.at(film.calls).x[face or 0]
        np.testing.assert_array_equal(shown[:face_size, left : left + face_size], expected)
    about = json.loads(picture.text[SETTINGS_KEY])
    assert {"compare", "weights", "versions"} <= about.keys()


def test_replay_says_identical_and_computes_anew(service, drawn):
    token = given(service, content(saved(service, drawn)))["token"]
    network = service.backend.engine.models.get("shipped").model.network
    made = network.calls
    *_, last = replayed(service, token)
    assert last["words"].startswith("Replay: identical. DDIM (η 0.5): 5 calls")
    assert network.calls == made + 60


def edited(png, change):
    picture = Image.open(io.BytesIO(png))
    about = PngImagePlugin.PngInfo()
    about.add_text(SETTINGS_KEY, picture.text[SETTINGS_KEY])
    buffer = io.BytesIO()
    Image.fromarray(change(np.asarray(picture).astype(int)).clip(0, 255).astype(np.uint8)).save(
        buffer, "PNG", pnginfo=about
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pixels: pixels + (np.arange(pixels.size).reshape(pixels.shape) % 97 == 0),
         "Replay: same picture (max 1/255)."),
        (lambda pixels: pixels // 2, "Replay: different (max "),
    ],
)  # fmt: skip
def test_replay_tells_small_differences_from_large_ones(service, drawn, change, words):
    png = edited(content(saved(service, drawn)), change)
    *_, last = replayed(service, given(service, png)["token"])
    assert last["words"].startswith(words)


@pytest.mark.parametrize("change", [lambda pixels: pixels[:-4], lambda pixels: pixels[::2, ::2]])
def test_a_picture_of_another_size_is_said_to_be_that_and_not_to_be_different(
    service, drawn, change
):
    png = edited(content(saved(service, drawn)), change)
    *_, last = replayed(service, given(service, png)["token"])
    assert last["words"].startswith(
        "Replay: not compared, as the given picture has another size; drop the file as it was "
        "saved. DDIM"
    )


def test_a_picture_of_other_weights_says_so(service, drawn):
    png = Image.open(io.BytesIO(content(saved(service, drawn))))
    about = json.loads(png.text[SETTINGS_KEY])
    back = given(service, with_settings({**about, "weights": "abcdef"}))
    assert "other weights drew it (abcdef)" in back["words"]


def with_settings(settings, size=(8, 8)):
    about = PngImagePlugin.PngInfo()
    if settings is not None:
        about.add_text(SETTINGS_KEY, json.dumps(settings))
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def bomb():
    """A PNG whose settings unpack to more than Pillow reads."""
    text = SETTINGS_KEY.encode() + b"\0\0" + zlib.compress(b"x" * 80_000_000)
    return with_chunk(with_settings(None), b"zTXt", text)


AFTER_THE_HEADER, BEFORE_THE_END = 33, -12


def with_chunk(png, kind, data, place=AFTER_THE_HEADER):
    """With one more chunk."""
    chunk = len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return png[:place] + chunk + png[place:]


GOOD = {"compare": {}, "face": None, "weights": ""}


@pytest.mark.parametrize(
    ("png", "words"),
    [
        (b"", wording.NOT_A_PNG),
        (b"not a picture", wording.NOT_A_PNG),
        (with_settings(GOOD)[:60], wording.NOT_A_PNG),
        (b"GIF89a" + bytes(200), wording.NOT_A_PNG),
        (with_settings(None), wording.NOT_OURS),
        (with_settings(GOOD, size=(2001, 2000)), wording.NOT_OURS),
        (with_settings([1]), wording.NOT_OURS),
        (with_settings({"compare": 3, "face": None, "weights": ""}), wording.NOT_OURS),
        (with_settings({**GOOD, "face": 4}), wording.NOT_OURS),
        (with_settings({**GOOD, "face": "1"}), wording.NOT_OURS),
        (with_settings({**GOOD, "face": 1.0}), wording.NOT_OURS),
        (with_settings({**GOOD, "face": True}), wording.NOT_OURS),
        (with_chunk(with_settings(GOOD), b"gAMA", b"\0", BEFORE_THE_END), wording.NOT_A_PNG),
        (with_chunk(with_settings(GOOD), b"tRNS", b"", BEFORE_THE_END), wording.NOT_A_PNG),
        (with_settings({**GOOD, "compare": {"left_steps": "0"}}), "DDPM steps is 0; choose"),
        (with_settings({**GOOD, "compare": {"T": 5}}), None),
        (with_settings({**GOOD, "compare": {"surprise": 5}}), None),
        (bomb(), wording.NOT_OURS),
        (bytes(4_000_001), wording.STAGE["too_large"]),
    ],
)
def test_what_was_not_saved_here_is_refused_in_one_sentence(service, png, words):
    made = service.backend.engine.network_calls
    answer = given(service, png)
    assert answer.get("words", "").startswith(words) if words else answer["token"]
    assert service.backend.engine.network_calls == made


@pytest.mark.parametrize("wish", [None, [], {}, {"png": 3}, {"png": "é"}, {"png": "a" * 6_000_000}])
def test_strange_calls_are_sentences_too(service, wish):
    answer = awaited(service.read(wish))
    assert answer["type"] == "problem"
    assert answer["words"] in (wording.NOT_A_PNG, wording.STAGE["too_large"])
    for call in (service.fill, service.keep):
        assert awaited(call(wish))["type"] == "problem"
    assert replayed(service, "no such picture")[0]["words"] == wording.REPLAY_GONE


MOMENTS = [[calls, min(calls, 5)] for calls in range(61)]


@pytest.mark.parametrize("lens", LENSES)
def test_an_mp4_shows_both_panes_moment_by_moment(service, drawn, lens):
    file = saved(service, drawn, kind="mp4", lens=lens, moments=MOMENTS)
    with av.open(io.BytesIO(content(file))) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 61 + keep.FPS["mp4"]
    assert frames[0].shape[1] > 2 * 380
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 5
    paper = frames[30][5, 5]
    np.testing.assert_allclose(paper, (0xFA, 0xF8, 0xF4), atol=4)


def test_a_gif_of_one_face_has_at_most_a_hundred_moments(service, drawn):
    many = [[0, 0]] * 150 + MOMENTS
    file = saved(service, drawn, kind="gif", lens="x", face=1, moments=many)
    with Image.open(io.BytesIO(content(file))) as film:
        assert 2 < film.n_frames <= keep.GIF_MOMENTS + 1
        assert film.info["loop"] == 0


@pytest.mark.parametrize(
    "wish",
    [
        {"kind": "exe"},
        {"kind": "mp4", "lens": "x", "moments": []},
        {"kind": "mp4", "lens": "x", "moments": [[1]]},
        {"kind": "mp4", "lens": "x", "moments": [["1", 2]]},
        {"kind": "mp4", "lens": "x", "moments": [[0, 0]] * 513},
        {"kind": "gif", "lens": "sizes", "moments": MOMENTS},
        {"kind": "gif", "lens": "x", "moments": None},
        {"kind": "png", "face": 4},
        {"kind": "png", "face": -1},
        {"kind": "png", "face": True},
        {"kind": "png", "face": 1.0},
        {"kind": "png", "face": "../x"},
        {"kind": ["png"]},
        {"run": "unknown"},
        {"run": ["unknown"]},
    ],
)
def test_a_wish_that_makes_no_file_is_refused_in_one_sentence(service, drawn, wish):
    answer = saved(service, **{"run": drawn, **wish})
    assert answer["type"] == "problem"
    assert answer["words"].endswith(".")


def test_a_run_that_was_stopped_keeps_its_film_but_has_no_faces():
    network = Network()
    service = Service(backend(network))

    async def stop():
        stream = service.run({"left_steps": "400"})
        for _ in range(6):  # that it is accepted, that it starts, and frames
            message = await anext(stream)
        await stream.aclose()
        return message["run"]

    run = awaited(stop())
    assert saved(service, run)["words"] == wording.NOT_FINISHED
    film = saved(service, run, kind="mp4", lens="x", moments=[[0, 0], [1, 1], [2, 2]])
    assert film["name"].endswith(".mp4")


def test_what_a_lens_lacks_is_filled_in_batches_and_never_beyond_the_film(service, drawn):
    stills = [[0, 60], [0, 10], [1, 5], [1, 6], [2, 0], [0, -1], [0, "1"], "x", [0, 0]]
    filled = awaited(service.fill({"run": drawn, "lens": "x0", "stills": stills}))["stills"]
    assert [(still["pane"], still["calls"]) for still in filled] == [
        (0, 60),
        (0, 10),
        (1, 5),
        (0, 0),
    ]
    assert [list(still["images"]) for still in filled] == [["x0"], ["x0"], ["x0"], []]
    assert filled[0]["sizes"]["x0"] > 0
    many = [[0, calls] for calls in range(61)]
    assert len(awaited(service.fill({"run": drawn, "lens": "eps", "stills": many}))["stills"]) == 24


def test_a_pane_that_a_run_does_not_have_has_no_stills():
    with recordings_shown():
        service = Service(backend())
        Maker(service, SimpleNamespace())  # whose faces are one pane
    wish = {"run": recorded.MADE, "lens": "x"}
    calls = service.reels.get(recorded.MADE).films[0].calls
    for pane in (1, -1, 0.0, 1.0, "0", None):
        found = awaited(service.fill({**wish, "stills": [[pane, calls], [0, calls]]}))["stills"]
        assert [still["pane"] for still in found] == [0]


def test_pictures_that_were_brought_back_are_bounded_by_their_bytes():
    service = Service(backend())
    large = with_settings(GOOD, size=(2000, 2000))  # a few kilobytes
    assert len(large) < 50_000
    tokens = [given(service, large)["token"] for _ in range(12)]
    held = [other.pixels.nbytes for other in service._given.values()]
    assert sum(held) <= GIVEN_BYTES < sum(held) + 3 * 2000 * 2000
    assert list(service._given) == tokens[-len(held) :]  # who came first has left


def reel(nbytes, comparison=read_comparison(1000)):  # noqa: B008
    film = Film(1)
    film.add(Still(0, 1000, 0.0, np.zeros((1, 1, nbytes, 1), np.uint8)))
    return Reel(comparison, (film, film), "")


def test_reels_are_bounded_and_shared_films_count_once():
    reels = Reels(limit=250)
    first, second = reel(100), reel(100)
    reels.keep("a", first)
    reels.keep("b", second)
    reels.keep("same", Reel(first.comparison, first.films, ""))
    assert reels.get("a") is first
    reels.keep("c", reel(100))
    assert reels.get("b") is None  # the one not asked for the longest
    assert reels.get("a") is first
    assert reels.get("c").films[0].nbytes == 100


def test_reels_that_grew_are_bounded_again_when_a_run_ends():
    reels = Reels(limit=250)
    reels.keep("a", reel(100))
    film = Film(1)
    with reels.growing("b"):
        reels.keep("b", Reel(read_comparison(1000), (film,), ""))
        reels.keep("c", reel(100))
        film.add(Still(0, 1000, 0.0, np.zeros((1, 1, 100, 1), np.uint8)))
        assert reels.get("a")
        reels.get("c")
    assert reels.get("a") is None
    assert reels.get("b").films == (film,)  # it was watched until now
    assert reels.get("c")


def test_a_run_that_is_still_drawn_stays_however_many_end_meanwhile():
    reels = Reels(limit=250)
    with reels.growing("long"):
        reels.keep("long", long := reel(100))
        for name in "abcd":
            reels.keep(name, reel(100))
        assert reels.get("long") is long
        assert reels.get("c") is None
        assert reels.get("d")
    for name in "ef":
        reels.keep(name, reel(100))
    assert reels.get("long") is None


def test_every_run_that_ends_leaves_the_reels_bounded():
    service = Service(backend())
    first = run(service, acknowledge=True, seed="1")[0]["run"]
    service.reels._limit = service.reels.get(first).nbytes * 3 // 2
    second = run(service, acknowledge=True, seed="2")[0]["run"]  # as large, when it is done
    assert service.reels.get(first) is None
    assert service.reels.get(second).done


def test_a_run_that_every_visitor_is_shown_never_leaves():
    reels = Reels(limit=250)
    reels.hold("shown", always := reel(100))
    for name in "abcd":
        reels.keep(name, reel(100))
    assert reels.get("shown") is always
    assert reels.get("b") is None
    assert reels.get("c").films[0].nbytes == 100


def test_a_recorded_run_is_shown_only_where_the_weights_that_drew_it_draw():
    service = Service(backend())
    assert awaited(service.opening()) is None
    assert service.reels.get(recorded.RUN) is None


def test_a_browser_gets_what_a_recorded_run_has_and_nothing_twice():
    with recordings_shown():
        service = Service(backend())
        shown = awaited(service.opening())
    for lens in LENSES:
        has = {still["calls"] for still in shown["stills"] if still["images"].get(lens)}
        every = [[0, calls] for calls in shown["start"]["panes"][0]["kept"]]
        for first in range(0, len(every), FILLED_AT_ONCE):
            some = every[first : first + FILLED_AT_ONCE]
            wish = {"run": recorded.RUN, "lens": lens, "stills": some}
            filled = [still["calls"] for still in awaited(service.fill(wish))["stills"]]
            assert len(filled) < len(some)
            assert filled == [calls for _, calls in some if calls in filled]
            assert set(filled) <= has | {0}  # where some lenses show nothing


def test_the_recorded_run_can_be_kept_like_any_other():
    with recordings_shown():
        service = Service(backend())
        shown = awaited(service.opening())
    assert recorded.FILE.stat().st_size < 1_000_000
    file = saved(service, "recorded")
    assert given(service, content(file))["fields"]["seed"] == shown["start"]["seed"]
    moments = [[calls, min(calls, 20)] for calls in range(0, 101, 4)]
    assert saved(service, "recorded", kind="mp4", lens="x0", moments=moments)["name"]


def test_when_many_films_are_asked_for_the_next_is_refused_at_once(service, drawn):
    begun, go_on = threading.Event(), threading.Event()

    def packing(*_):
        begun.set()
        go_on.wait(10)
        return b"film"

    async def asked():
        wish = {"run": drawn, "kind": "gif", "lens": "x", "moments": MOMENTS}
        tasks = [asyncio.create_task(service.keep(wish)) for _ in range(FILMS)]
        await asyncio.to_thread(begun.wait, 10)
        refused = await service.keep(wish)
        go_on.set()
        return refused, await asyncio.gather(*tasks), await service.keep(wish)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demo.keep.animation", packing)
        refused, made, afterwards = awaited(asked())
    assert refused["words"] == wording.FILMS_BUSY
    assert all("uri" in file for file in [*made, afterwards])


def test_settings_that_are_nested_without_end_are_none_of_ours():
    buffer, about = io.BytesIO(), PngImagePlugin.PngInfo()
    about.add_text(SETTINGS_KEY, "[" * 100_000)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=about)
    with pytest.raises(ValueError, match=re.escape(wording.NOT_OURS)):
        keep.read(buffer.getvalue())
