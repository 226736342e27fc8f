"""The stream of ticks: two walks of one network, call by call."""

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import awaited, randomised

from demo.backend import INTERVAL, MODEL, Begun, LocalBackend, RunEnded, Tick, shown_in
from demo.settings import read_comparison
from diffusion import DiffusionModel, Schedule, UNetConfig
from diffusion.recipe import draw
from diffusion.slots import Capacity


class Network(torch.nn.Module):
    """Cheap, and different for every x and time."""

    def __init__(self):
        super().__init__()
        self.config = UNetConfig(size=16, widths=(16,))
        self.gain = torch.nn.Parameter(torch.tensor(0.3))
        self.calls = 0
        self.delay = 0.0

    def forward(self, x, t):
        self.calls += 1
        time.sleep(self.delay)
        return torch.tanh(self.gain * x + t[:, None, None, None] / 1000)


CAPACITY = Capacity(quick=4, full=8, images_per_second=1000.0, in_flight=64)


def backend(network=None, capacity=CAPACITY):
    return LocalBackend(DiffusionModel(network or Network(), Schedule.cosine()), capacity)


def watched(source, asked):
    """All that a visitor sees of one run."""

    async def watch():
        return [event async for event in source.stream(asked) if isinstance(event, Tick)]

    return awaited(watch())


def comparison(**fields):
    given = {"seed": 3, "faces": 4, "left_steps": 7, "right_steps": 4}
    return read_comparison(1000, **{**given, **fields})


def test_both_panes_begin_with_the_same_noise():
    first, *_ = watched(backend(), comparison())
    assert first.calls == (0, 0)
    np.testing.assert_array_equal(*(still.x for still in first.stills))


def test_each_tick_is_one_call_of_each_pane_until_it_is_done():
    ticks = watched(backend(), comparison())
    assert [tick.calls for tick in ticks] == [
        (0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4), (7, 4),
    ]  # fmt: skip
    assert [tick.done for tick in ticks] == [False] * 7 + [True]
    assert ticks[4].stills[1] is ticks[-1].stills[1]
    assert ticks[-1].stills[1].seconds < ticks[-1].stills[0].seconds


def test_the_page_draws_what_the_command_line_draws():
    source, asked = backend(), comparison()
    *_, last = watched(source, asked)
    model = source.engine.models.get(MODEL).model
    for recipe, still in zip(asked.recipes, last.stills, strict=True):
        np.testing.assert_array_equal(still.x, draw(model, asked.seeds, recipe))


def test_ddim_with_eta_one_lands_on_ddpm():
    *_, last = watched(backend(), comparison(left_steps=6, right_steps=6, right_eta=1))
    np.testing.assert_array_equal(*(still.x for still in last.stills))


def test_a_long_run_is_shown_in_few_ticks_with_both_ends(
    monkeypatch,
):
    monkeypatch.setattr("demo.backend.INTERVAL", 0.0)
    ticks = watched(backend(), comparison(faces=1, left_steps=1000, right_steps=1))
    assert len(ticks) == 202
    assert [ticks[0].calls, ticks[1].calls, ticks[-1].calls] == [(0, 0), (0, 1), (1000, 1)]


def test_a_closed_stream_calls_the_network_no_more():
    source = backend(network := Network())

    async def leave():
        stream = source.stream(comparison(left_steps=900))
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        await asyncio.sleep(0.05)
        made = network.calls
        await asyncio.sleep(0.2)
        return made

    assert awaited(leave()) == network.calls < 900
    assert source.engine.load == (0, 0)


def test_who_leaves_before_the_run_is_accepted_leaves_nothing_behind(monkeypatch):
    source = backend(network := Network())
    submit, asked = source.engine.submit, threading.Event()

    def slow(requests):
        asked.set()
        time.sleep(0.2)
        return submit(requests)

    monkeypatch.setattr(source.engine, "submit", slow)
    network.delay = 0.01

    async def leave():
        begun = asyncio.ensure_future(anext(source.stream(comparison(left_steps=900))))
        await asyncio.to_thread(asked.wait, 20)
        begun.cancel()
        await asyncio.wait([begun])
        await asyncio.sleep(0.5)
        return begun.cancelled(), source.engine.load

    assert awaited(leave()) == (True, (0, 0))


def test_both_panes_and_what_is_told_of_them_are_one_models_while_it_trains(tmp_path, monkeypatch):
    loaded = []

    def save():
        network = randomised(UNetConfig(size=16, widths=(16,)), seed=len(loaded))
        DiffusionModel(network, Schedule.cosine()).save_pretrained(tmp_path)

    def load(name, device, backend):
        loaded.append(DiffusionModel.from_pretrained(name, device))
        save()  # before anybody asks for the model again
        return loaded[-1]

    save()
    monkeypatch.setattr("demo.backend._load", load)
    source = backend().of(str(tmp_path))
    asked = comparison(left_steps=6, right_steps=6, right_eta=1)

    async def watch():
        return [event async for event in source.stream(asked)]

    begun, *_, last = awaited(watch())
    np.testing.assert_array_equal(*(still.x for still in last.stills))
    assert source.weights == loaded[0].version
    assert begun.weights == loaded[1].version != loaded[0].version
    assert begun.schedule is loaded[1].schedule
    assert len(loaded) == 2


def test_a_second_look_at_a_run_is_animated_again_without_a_call():
    source = backend(network := Network())
    first = watched(source, comparison())
    made, start = network.calls, time.perf_counter()
    again = watched(source, comparison())
    assert time.perf_counter() - start >= (len(again) - 1) * INTERVAL * 0.9
    assert network.calls == made
    for one, other in zip(first, again, strict=True):
        assert one.calls == other.calls
        assert one.stills == other.stills


def test_ticks_are_paced():
    async def times():
        clock = asyncio.get_running_loop().time
        return [clock() async for _ in backend().stream(comparison(left_steps=12))]

    gaps = np.diff(awaited(times()))
    assert np.median(gaps) == pytest.approx(INTERVAL, rel=0.3)


def test_a_failing_network_is_a_sentence():
    source = backend(network := Network())
    network.forward = lambda *_: 1 / 0
    with pytest.raises(RunEnded, match=r"ended early \(ZeroDivisionError\)"):
        watched(source, comparison())


def test_who_waits_is_told_place_and_seconds():
    one_at_a_time = Capacity(quick=1, full=1, images_per_second=10.0, in_flight=2)
    source = backend(network := Network(), one_at_a_time)
    network.delay = 0.01

    async def meet():
        first = source.stream(comparison(faces=1, left_steps=1000, right_steps=1000))
        assert isinstance(await anext(first), Begun)
        await anext(first)
        second = source.stream(comparison(faces=1, left_steps=5))
        begun, place = await anext(second), await anext(second)
        assert [film.reached for film in begun.films] == [-1, -1]
        await first.aclose()
        rest = [tick async for tick in second]
        return place, rest

    place, rest = awaited(meet())
    assert place.number == 1
    assert 100 < place.seconds <= 200  # of 2,000 calls, 10 a second
    assert rest[-1].done


def test_alone_is_a_run_of_its_own_with_the_same_pictures():
    source = backend(network := Network())
    first = watched(source, comparison())
    made = network.calls

    async def again():
        return [event async for event in source.stream(comparison(), alone="me")]

    begun, *_, last = awaited(again())
    assert network.calls == 2 * made
    for one, other in zip(first[-1].stills, last.stills, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
    assert [film.done for film in begun.films] == [True, True]


def test_the_speed_is_unknown_until_it_is_measured():
    assert backend().seconds(4, 1050) == 4 * 1050 / 1000.0
    source = backend(Network(), capacity=None)
    end = time.monotonic() + 20
    while source.seconds(1, 1) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert source.seconds(1, 1) > 0
    source.close()


def test_a_backend_draws_with_every_model_in_the_way_it_was_told(tmp_path):
    network = randomised(UNetConfig(size=16, widths=(16,)))
    DiffusionModel(network, Schedule.cosine()).save_pretrained(tmp_path)
    for name in ("float32", "bfloat16"):
        shipped = DiffusionModel(Network(), Schedule.cosine())
        source = LocalBackend(shipped, CAPACITY, backend=name)
        other = source.of(str(tmp_path))
        assert other.engine.models.get(str(tmp_path)).model.backend == name
        source.close()


def test_a_run_takes_at_least_as_long_as_its_pictures_are_shown(monkeypatch):
    monkeypatch.setattr("demo.backend.INTERVAL", 0.5)
    assert shown_in((7, 4)) == 7 * 0.5
    # Of 1000 calls every fifth is kept; the first fifty are those of the other pane, too.
    assert shown_in((1000, 50)) == (50 + 190) * 0.5


def test_a_backend_is_busy_while_it_draws_for_somebody():
    source = backend()

    async def look():
        stream = source.stream(comparison(left_steps=900))
        await anext(stream), await anext(stream)
        during = source.busy
        await stream.aclose()
        return during

    assert not source.busy
    assert awaited(look())
    assert not source.busy
    source.close()


def test_runs_that_begin_later_are_computed_in_the_faster_way(monkeypatch):
    slow, fast = Network(), Network()
    source = backend(slow)
    monkeypatch.setattr(
        "demo.backend.prepare",
        lambda model, done: done(replace(model, compute=fast, backend="openvino")),
    )
    before = watched(source, comparison())
    source.improve()
    assert source.engine.models.get(MODEL).model.backend == "openvino"
    slow.calls = fast.calls = 0
    after = watched(source, comparison())
    assert fast.calls
    assert not slow.calls
    for one, other in zip(before[-1].stills, after[-1].stills, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
    source.close()
