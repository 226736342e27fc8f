"""What travels to the browser, and how often."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from test_backend import backend

from demo import compare, messages
from demo.backend import Tick
from demo.viewers import WINDOW, Viewers


def pictures(faces=4, value=None):
    rng = np.random.default_rng(0)
    shape = (faces, 16, 16, 3)
    return np.full(shape, value, np.uint8) if value else rng.integers(0, 256, shape, np.uint8)


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_faces_are_tiled_row_by_row():
    four = np.stack([np.full((2, 3, 3), i, np.uint8) for i in range(4)])
    tiled = messages.tile(four)
    assert tiled.shape == (4, 6, 3)
    assert [tiled[0, 0, 0], tiled[0, 3, 0], tiled[2, 0, 0], tiled[2, 3, 0]] == [0, 1, 2, 3]


def test_the_last_picture_arrives_without_loss():
    tick = Tick((2, 1), (0, 0), (0.1, 0.1), (pictures(), pictures(value=9)), done=True)
    decoded = decode(messages.picture(tick, noise=0.0))
    np.testing.assert_array_equal(decoded[:, :32], messages.tile(tick.pictures[0]))
    np.testing.assert_array_equal(decoded[:, 32:], messages.tile(tick.pictures[1]))


def test_equal_noise_is_equal_after_compression():
    tick = Tick((0, 0), (9, 9), (0.0, 0.0), (pictures(), pictures()), done=False)
    uri = messages.picture(tick, noise=1.0)
    assert uri.startswith("data:image/jpeg")
    np.testing.assert_array_equal(decode(uri)[:, :32], decode(uri)[:, 32:])


def run(viewers, steps, acknowledge):
    """The messages of a run whose viewer answers, or not."""
    received = []
    for message in compare.compare(backend(), viewers, ("7", 4, steps, "5", "0")):
        received.append(message)
        if acknowledge and message["type"] == "frame":
            viewers.acknowledge({"run": message["run"], "number": message["number"]})
    return received


def test_a_viewer_that_keeps_up_gets_every_frame():
    viewers = Viewers()
    start, *frames = run(viewers, "60", acknowledge=True)
    assert start["panes"][1]["levels"] == [1000, 800, 600, 400, 200, 0]
    assert start["panes"][1]["noise"][0] == pytest.approx(1)
    assert start["panes"][1]["noise"][-1] == 0
    assert [frame["calls"][0] for frame in frames] == list(range(61))
    assert len(viewers) == 0


def test_a_viewer_that_is_behind_misses_frames_but_never_the_last():
    _, *frames = run(Viewers(), "60", acknowledge=False)
    assert len(frames) == WINDOW + 1
    assert frames[-1]["done"]
    assert frames[-1]["words"].count("calls") == 2


def test_receipts_of_strangers_count_for_nothing():
    viewers = Viewers()
    with viewers.watch() as viewer:
        viewer.sent = 5
        for receipt in (None, 3, [], {}, {"run": viewer.run}, {"run": "x", "number": 1}):
            viewers.acknowledge(receipt)
        for number in (6, -1, "1", 1.5, None):
            viewers.acknowledge({"run": viewer.run, "number": number})
        assert viewer.acknowledged == 0
        viewers.acknowledge({"run": viewer.run, "number": 4})
        viewers.acknowledge({"run": viewer.run, "number": 2})
        assert viewer.acknowledged == 4


def test_a_failing_network_ends_in_one_sentence():
    source = backend()
    source.model.network.forward = lambda *_: 1 / 0
    *_, last = compare.compare(source, Viewers(), ("7", 4, "3", "2", "0"))
    assert last == messages.problem(
        "The run ended early (ZeroDivisionError); press Run to try again."
    )


def test_a_closed_page_leaves_no_viewer_behind():
    viewers = Viewers()
    stream = compare.compare(backend(), viewers, ("7", 4, "60", "5", "0"))
    next(stream), next(stream)
    assert len(viewers) == 1
    stream.close()
    assert len(viewers) == 0
