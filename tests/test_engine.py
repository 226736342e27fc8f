"""The engine: everybody's images in one batch, and nobody notices the others."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import CAPACITY, randomised, wait

from diffusion import DiffusionModel, Noise, Schedule, UNetConfig, sample
from diffusion.engine import Engine, Full
from diffusion.film import sizes
from diffusion.model import ready
from diffusion.pictures import to_uint8
from diffusion.recipe import Recipe, draw
from diffusion.residents import Residents
from diffusion.slots import Capacity
from diffusion.walks import Request

RECIPES = (
    Recipe("ddpm", 30),
    Recipe("ddpm", 12, variance="large"),
    Recipe("ddim", 20),
    Recipe("ddim", 9, eta=0.5, spacing="quadratic"),
    Recipe("ddim", 7, clip=False),
    Recipe("dpmpp_2m", 15),
)


class Watched(torch.nn.Module):
    """A network that counts its calls and can be slow, waiting, broken or short of memory."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config = network, network.config
        self.batches: list[int] = []
        self.delay = 0.0
        self.before = lambda x, time: None
        self.gate = threading.Event()
        self.gate.set()

    def forward(self, x, t, *labels):
        self.gate.wait(20)
        time.sleep(self.delay)
        self.before(x, t)
        self.batches.append(len(x))
        return self.network(x, t, *labels)


@pytest.fixture
def model():
    unet = randomised(UNetConfig(size=16, widths=(16, 32)))
    return DiffusionModel(Watched(ready(unet)), Schedule.cosine())


@pytest.fixture
def labelled():
    unet = randomised(UNetConfig(size=16, widths=(16, 32), labels=(3, 2)))
    labels = {"hair": ["a", "b", "c"], "glasses": ["no", "yes"]}
    return DiffusionModel(Watched(ready(unet)), Schedule.cosine(), labels=labels)


@pytest.fixture
def make():
    """Engines that are closed when the test is over."""
    engines = []

    def make(capacity=CAPACITY, **models):
        residents = Residents()
        for name, model in models.items():
            residents.keep(name, model)
        settings = {"line": models.pop("line")} if "line" in models else {}
        engines.append(Engine(residents, capacity, **settings))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make, model):
    return make(m=model)


def request(recipe=RECIPES[2], seed=0, images=4, model="m", **settings):
    return Request(model, tuple(range(seed, seed + images)), recipe, **settings)


def finish(showing):
    wait(lambda: all(film.done or film.problem for film in showing.films))
    return [film.at(film.calls).x if film.done else film.problem for film in showing.films]


def plain(model, request):
    """The same pictures by the loop of diffusion.samplers, after every step."""
    noise = Noise(request.seeds, model.shape)
    labels = request.labels and torch.tensor([request.labels] * len(request.seeds))
    denoise = model.denoiser(labels, request.guidance, request.recipe.clip)
    plan = request.recipe.plan(model.schedule)
    frames = sample(denoise, plan, noise(model.schedule.T), noise)
    return [to_uint8(frame.x) for frame in frames]


def test_a_finished_picture_is_that_of_the_plain_loop_made_crisp(engine, model):
    asked = request(replace(RECIPES[2], finish="crisp"))
    with engine.submit([asked]) as showing:
        [last] = finish(showing)
    np.testing.assert_array_equal(last, draw(model, asked.seeds, asked.recipe))
    assert not np.array_equal(last, plain(model, asked)[-1])
    before = showing.films[0].at(showing.films[0].calls - 1).x
    np.testing.assert_array_equal(before, plain(model, asked)[-2])


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_alone_every_step_is_that_of_the_plain_loop(engine, model, recipe):
    asked = request(recipe)
    with engine.submit([asked]) as showing:
        finish(showing)
    [film] = showing.films
    for calls, pictures in enumerate(plain(model, asked), start=1):
        np.testing.assert_array_equal(film.at(calls).x, pictures)
        assert film.at(calls).level == recipe.plan(model.schedule)[calls - 1].s


@pytest.mark.parametrize("recipe", [RECIPES[1], RECIPES[5]], ids=str)
def test_a_still_tells_how_large_everything_was_that_its_step_mixed(make, model, recipe):
    engine = make(Capacity(3, 3, 1000.0, 256), m=model)  # no step is done in one call
    asked = request(recipe)
    with engine.submit([asked]) as showing:
        finish(showing)
    plan, noise = recipe.plan(model.schedule), Noise(asked.seeds, model.shape)
    frames = sample(model.denoiser(), plan, noise(model.schedule.T), noise)
    for calls, (row, frame) in enumerate(zip(plan, frames, strict=True), start=1):
        found = showing.films[0].at(calls).sizes
        assert found.to_json() == pytest.approx(sizes(row, frame).to_json(), rel=1e-3)


def test_among_strangers_pictures_differ_by_two_levels_at_most(make, model):
    engine = make(Capacity(32, 32, 1000.0, 256), m=model)
    asked = [request(recipe, seed=10 * i, images=i + 1) for i, recipe in enumerate(RECIPES)]
    model.network.gate.clear()
    showings = [engine.submit([one]) for one in asked]
    model.network.gate.set()
    for one, showing in zip(asked, showings, strict=True):
        [pictures] = finish(showing)
        difference = pictures.astype(int) - plain(model, one)[-1].astype(int)
        assert np.abs(difference).max() <= 2
    assert max(model.network.batches) == 21  # they did share batches


def test_in_bfloat16_strangers_change_little(make):
    unet = ready(randomised(UNetConfig(size=16, widths=(16, 32)))).bfloat16()
    model = DiffusionModel(Watched(unet), Schedule.cosine())
    engine = make(Capacity(32, 32, 1000.0, 256), m=model)
    asked = [request(Recipe("ddim", 50), seed=10 * i) for i in range(6)]
    model.network.gate.clear()
    showings = [engine.submit([one]) for one in asked]
    model.network.gate.set()
    for one, showing in zip(asked, showings, strict=True):
        [pictures] = finish(showing)
        difference = np.abs(pictures.astype(int) - plain(model, one)[-1].astype(int))
        assert difference.mean() <= 1
        assert np.percentile(difference, 99) <= 8
    assert max(model.network.batches) == 24  # they did share batches


def test_labels_and_guidance_are_each_images_own(make, labelled):
    engine = make(m=labelled)
    asked = [
        request(seed=1),
        request(seed=1, labels=(2, 1)),
        request(seed=1, labels=(2, 1), guidance=3.0),
        request(seed=1, labels=(2, -1), guidance=0.0),
        request(RECIPES[0], seed=1, labels=(0, 0), guidance=2.0),
        request(RECIPES[4], seed=1, labels=(1, -1)),
    ]
    labelled.network.gate.clear()
    showings = [engine.submit([one]) for one in asked]
    labelled.network.gate.set()
    drawn = [finish(showing)[0] for showing in showings]
    for one, pictures in zip(asked, drawn, strict=True):
        difference = pictures.astype(int) - plain(labelled, one)[-1].astype(int)
        assert np.abs(difference).max() <= 2
    np.testing.assert_array_equal(drawn[0], drawn[3])  # guidance 0 ignores the labels
    assert not np.array_equal(drawn[1], drawn[2])


@pytest.mark.parametrize("quick", [1, 3, 4, 5])
def test_more_images_than_slots_are_drawn_all_the_same(make, model, quick):
    engine = make(Capacity(quick, quick, 1000.0, 256), m=model)
    asked = request(RECIPES[0], images=7)
    [pictures] = finish(engine.submit([asked]))
    assert max(model.network.batches) <= quick
    difference = pictures.astype(int) - plain(model, asked)[-1].astype(int)
    assert np.abs(difference).max() <= 2


def test_requests_of_one_visitor_keep_step(make, model):
    engine = make(Capacity(3, 3, 1000.0, 256), m=model)
    showing = engine.submit([request(RECIPES[0]), request(RECIPES[2])])
    left, right = showing.films
    apart = []
    left.watch(lambda: apart.append(left.reached - right.reached))
    finish(showing)
    during = apart[: RECIPES[2].steps + 1]
    assert set(during) <= {0, 1}


def test_a_request_joins_and_leaves_at_the_next_call(engine, model):
    model.network.delay = 0.01
    long = engine.submit([request(Recipe("ddpm", 900), images=1)])
    wait(lambda: long.films[0].reached > 3)
    short = engine.submit([request(Recipe("ddim", 5), seed=50, images=1)])
    finish(short)
    assert long.films[0].reached < 900
    made = len(model.network.batches)
    wait(lambda: len(model.network.batches) > made + 3)
    assert model.network.batches[-1] == 1
    long.close()


def test_a_short_request_among_long_ones_waits_for_few_calls(make, model):
    engine = make(Capacity(4, 16, 1000.0, 256), m=model)
    long = [engine.submit([request(Recipe("ddpm", 1000), 100 * i, 1)]) for i in range(15)]
    wait(lambda: all(showing.films[0].reached > 0 for showing in long))
    before = len(model.network.batches)
    finish(engine.submit([request(Recipe("ddim", 20), seed=7, images=1)]))
    assert len(model.network.batches) - before <= 20 + 3
    assert max(model.network.batches[before + 2 : before + 20]) <= 4
    for showing in long:
        showing.close()


def test_thirty_equal_requests_cost_one(engine, model):
    model.network.delay = 0.002
    showings = [engine.submit([request(RECIPES[0]), request(RECIPES[2])]) for _ in range(30)]
    drawn = [finish(showing) for showing in showings]
    assert len(model.network.batches) == 30
    assert sum(model.network.batches) == 4 * 30 + 4 * 20
    assert all(showing.films[0] is showings[0].films[0] for showing in showings)
    assert len(drawn) == 30


def test_a_request_alone_is_computed_anew_and_without_strangers(make, model):
    engine = make(m=model)
    asked = Request("m", (5, 6), Recipe("ddim", 6))
    finish(engine.submit([asked]))
    stranger = engine.submit([Request("m", (9,), Recipe("ddpm", 40))])
    before = engine.network_calls
    model.network.batches.clear()
    [pictures] = finish(engine.submit([replace(asked, alone="again")]))
    assert engine.network_calls >= before + 6
    assert model.network.batches.count(2) == 6  # its two images, and never the stranger's third
    assert 3 not in model.network.batches
    np.testing.assert_array_equal(pictures, plain(model, asked)[-1])
    finish(stranger)


def test_a_late_joiner_gets_the_earlier_pictures_at_once(engine, model):
    first = engine.submit([request(RECIPES[0])])
    wait(lambda: first.films[0].reached >= 10)
    model.network.gate.clear()
    late = engine.submit([request(RECIPES[0])])
    assert late.films[0].at(5).calls == 5
    model.network.gate.set()
    first.close()  # the one who asked first leaves; the other still gets all
    assert isinstance(finish(late)[0], np.ndarray)


def test_only_the_pane_that_changed_is_computed_again(engine, model):
    finish(engine.submit([request(RECIPES[0]), request(Recipe("ddim", 20))]))
    model.network.batches.clear()
    finish(engine.submit([request(RECIPES[0]), request(Recipe("ddim", 20, eta=0.3))]))
    assert model.network.batches == [4] * 20


def test_finished_runs_leave_when_memory_is_needed(make, model):
    engine = make(m=model)
    engine._finished_bytes = 3 * 21 * 4 * 16 * 16 * 3  # three films of 20 calls
    for seed in (0, 10, 20, 30):
        finish(engine.submit([request(seed=seed)]))
        wait(lambda: engine.load == (0, 0))
    model.network.batches.clear()
    finish(engine.submit([request(seed=30)]))
    assert model.network.batches == []
    finish(engine.submit([request(seed=0)]))
    assert len(model.network.batches) == 20


def test_closing_ends_the_work_within_two_calls(engine, model):
    model.network.delay = 0.01
    showing = engine.submit([request(Recipe("ddpm", 1000))])
    wait(lambda: showing.films[0].reached >= 4)
    made = len(model.network.batches)
    showing.close()
    showing.close()
    assert engine.load == (0, 0)
    time.sleep(0.1)
    assert len(model.network.batches) <= made + 2


def test_the_line_tells_place_and_seconds_and_is_bounded(make, model):
    engine = make(Capacity(4, 4, 100.0, in_flight=4), m=model, line=2)
    model.network.gate.clear()
    going = engine.submit([request(Recipe("ddpm", 50))])
    wait(lambda: going.films[0].reached == 0)
    second = engine.submit([request(Recipe("ddim", 30), seed=10)])
    third = engine.submit([request(Recipe("ddim", 20), seed=20)])
    with pytest.raises(Full, match=r"^2 visitors wait already; try again in about 1 minute\.$"):
        engine.submit([request(Recipe("ddim", 5), seed=30)])
    made = len(model.network.batches)
    same = engine.submit([request(Recipe("ddim", 20), seed=20)])  # costs nothing: no refusal
    assert len(model.network.batches) == made
    engine._places_told = 0.0
    model.network.gate.set()
    seen = []
    third.films[0].watch(lambda: seen.append(third.films[0].place))
    for showing in (going, second, third, same):
        assert isinstance(finish(showing)[0], np.ndarray)
    assert any(place and 1 <= place.number <= 2 and 0 < place.seconds <= 3.3 for place in seen)


@pytest.mark.parametrize(
    ("wish", "rows"),
    [
        ({"labels": (2, 1), "guidance": 2.0}, 2),
        ({"labels": (2, 1), "guidance": 1.0}, 1),
        ({"labels": (2, 1), "guidance": 0.0}, 1),
        ({"labels": (-1, -1), "guidance": 2.0}, 1),
        ({"guidance": 2.0}, 1),
    ],
    ids=str,
)
def test_guidance_costs_whoever_waits_two_rows_for_each_image(make, labelled, wish, rows):
    engine = make(Capacity(4, 8, 100.0, in_flight=4), m=labelled, line=1)
    labelled.network.gate.clear()
    going = engine.submit([request(Recipe("ddpm", 900), **wish)])
    wait(lambda: going.films[0].reached == 0)
    engine._places_told = 0.0
    second = engine.submit([request(Recipe("ddim", 30), seed=10)])
    minutes = round((rows * 4 * 900 + 4 * 30) / 100.0 / 60)
    with pytest.raises(Full, match=f"try again in about {minutes} minute"):
        engine.submit([request(Recipe("ddim", 5), seed=30)])
    labelled.network.gate.set()
    wait(lambda: second.films[0].place)
    assert second.films[0].place.seconds == pytest.approx(rows * 4 * 900 / 100.0, rel=0.02)
    assert set(labelled.network.batches) == {4 * rows}
    going.close()
    second.close()


def test_the_clock_of_a_run_begins_with_its_first_call(engine):
    walk = engine._walk(request(Recipe("ddim", 5)), engine.models.get("m"))
    walk.begin()
    time.sleep(0.5)  # others are served first
    part = walk.take(4)
    walk.land(part.x, part.x, part.x)
    assert walk.film.at(1).seconds < 0.5


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"recipe": Recipe("ddim", 10_000)}, "10000 steps asked of a 1000-step schedule"),
        ({"labels": (7, 0)}, "labels"),
        ({"model": "runs/none"}, "no model in runs/none"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_any_call(make, labelled, bad, sentence):
    engine = make(m=labelled)
    with pytest.raises(ValueError, match=sentence):
        engine.submit([request(**bad)])
    assert labelled.network.batches == []
    assert engine.load == (0, 0)


def test_an_error_ends_the_request_that_caused_it_alone(engine, model):
    # Only the request with 13 steps visits level 77.
    def fail_at_77(x, t):
        if (t == 77).any():
            raise ValueError("a secret detail")

    model.network.before = fail_at_77
    model.network.gate.clear()
    good, bad = engine.submit([request()]), engine.submit([request(Recipe("ddim", 13), seed=50)])
    model.network.gate.set()
    assert finish(bad) == ["The run ended early (ValueError); try it again."]
    np.testing.assert_array_equal(finish(good)[0].shape, (4, 16, 16, 3))
    wait(lambda: engine.load == (0, 0))  # what is done is put away a moment later


def test_who_asks_again_does_not_join_a_run_that_has_failed(engine, model, monkeypatch):
    monkeypatch.setattr(engine, "_start", lambda: None)  # nothing is put away meanwhile
    with engine.submit([request()]) as first:
        first.films[0].fail("The run ended early; try it again.")
        with engine.submit([request()]) as second:
            assert second.films[0].problem is None


def test_what_is_not_a_number_ends_its_request_and_says_so(engine, model):
    class Spoiled(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.config = network, network.config

        def forward(self, x, t):
            output = self.network(x, t)
            output[t == 77] = float("nan")
            return output

    model.network.network = Spoiled(model.network.network)
    good, bad = engine.submit([request()]), engine.submit([request(Recipe("ddim", 13), seed=50)])
    assert "not a number" in finish(bad)[0]
    assert isinstance(finish(good)[0], np.ndarray)


def test_a_full_memory_halves_the_batch_and_goes_on(engine, model):
    def little_memory(x, t):
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.network.before = little_memory
    asked = request(RECIPES[2], images=7)
    [pictures] = finish(engine.submit([asked]))
    model.network.before = lambda x, t: None
    difference = pictures.astype(int) - plain(model, asked)[-1].astype(int)
    assert np.abs(difference).max() <= 2
    assert engine.capacity.full <= 3


def test_a_full_memory_of_a_device_that_has_no_error_of_its_own_is_known_too(engine, model):
    def little_memory(x, t):
        if len(x) > 3:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 17.95 GB)")

    model.network.before = little_memory
    [pictures] = finish(engine.submit([request(images=7)]))
    assert pictures.shape == (7, 16, 16, 3)
    assert engine.capacity.full <= 3


def test_memory_that_is_free_again_is_used_again(engine, model, monkeypatch):
    def little_memory(x, t):
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.network.before = little_memory
    finish(engine.submit([request(images=7)]))
    model.network.before = lambda x, t: None
    model.network.batches.clear()
    finish(engine.submit([request(seed=10, images=7)]))
    assert max(model.network.batches) <= 3  # a moment later it is not tried yet
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 60)
    model.network.batches.clear()
    finish(engine.submit([request(seed=20, images=7)]))
    assert model.network.batches == [7] * 20
    assert engine.capacity == CAPACITY


class _Forgetful(torch.nn.Module):
    """Fails in the middle of a call, and looks what failed calls before it have left behind."""

    def __init__(self, network, fails):
        super().__init__()
        self.network, self.config, self.fails = network, network.config, fails
        self.activations: list[weakref.ref] = []
        self.left: list[int] = []

    def forward(self, x, t):
        self.left.append(sum(ref() is not None for ref in self.activations))
        activation = x * 2
        self.activations.append(weakref.ref(activation))
        self.fails(x, t)
        return self.network(x, t)


def test_a_full_memory_is_left_before_the_halves_are_tried(make, model):
    def little_memory(x, t):
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network = _Forgetful(model.network.network, little_memory)
    engine = make(m=replace(model, network=network))
    assert isinstance(finish(engine.submit([request(images=7)]))[0], np.ndarray)
    assert len(network.left) > 20
    assert not any(network.left)


def test_an_error_is_left_before_the_others_are_tried(make, model, caplog):
    caplog.set_level(logging.CRITICAL, "diffusion.engine")  # pytest would keep the error

    def fail_at_77(x, t):
        if (t == 77).any():
            raise ValueError("a secret detail")

    network = _Forgetful(model.network.network, fail_at_77)
    engine = make(m=replace(model, network=network))
    both = engine.submit([request(), request(Recipe("ddim", 13), seed=50)])
    assert isinstance(finish(both)[0], np.ndarray)
    assert not any(network.left)


def test_without_memory_for_one_image_the_request_ends_in_a_sentence(engine, model):
    def no_memory(x, t):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.network.before = no_memory
    assert finish(engine.submit([request()])) == ["The device has no memory left; try again later."]


def test_a_batch_is_no_larger_than_measured_although_guidance_takes_two_rows(make, labelled):
    engine = make(Capacity(4, 8, 100.0, in_flight=64), m=labelled)
    guided = request(RECIPES[0], images=12, labels=(2, 1), guidance=2.0)
    assert guided.rows == 24
    finish(engine.submit([guided]))
    assert max(labelled.network.batches) == 8


def test_several_models_are_drawn_from_at_once(make, model, labelled):
    engine = make(m=model, other=labelled)
    both = engine.submit([request(RECIPES[0]), request(RECIPES[2], model="other")])
    left, right = finish(both)
    np.testing.assert_array_equal(left, plain(model, request(RECIPES[0]))[-1])
    np.testing.assert_array_equal(right, plain(labelled, request(RECIPES[2]))[-1])


def test_a_closed_engine_ends_everybody_in_a_sentence(engine, model):
    model.network.delay = 0.01
    showing = engine.submit([request(Recipe("ddpm", 1000))])
    wait(lambda: showing.films[0].reached >= 2)
    engine.close()
    assert "shutting down" in showing.films[0].problem
    with pytest.raises(Full, match="shutting down"):
        engine.submit([request()])


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
def test_thousand_requests_cancelled_at_random_leave_nothing_behind(make, model):
    engine = make(Capacity(4, 8, 1000.0, in_flight=40), m=model)
    rng = random.Random(0)

    def storm(visits):
        for _ in range(visits):
            recipe = Recipe(rng.choice(["ddpm", "ddim", "dpmpp_2m"]), rng.randint(1, 200))
            try:
                showing = engine.submit([request(recipe, rng.randrange(10**6), rng.choice([1, 4]))])
            except Full:
                time.sleep(0.01)
                continue
            showings.append(showing)
            if len(showings) > 20 or rng.random() < 0.3:
                showings.pop(rng.randrange(len(showings))).close()
        while showings:
            showings.pop().close()
        wait(lambda: engine.load == (0, 0))

    showings = []
    storm(100)
    gc.collect()
    threads, before = threading.active_count(), resident_bytes()
    storm(1000)
    gc.collect()
    assert threading.active_count() == threads
    assert not engine._walks
    assert not engine._active
    assert resident_bytes() - before < 20 * 2**20
    assert isinstance(finish(engine.submit([request()]))[0], np.ndarray)


def test_the_machine_is_measured_again_when_nobody_waits(model, monkeypatch):
    found = [CAPACITY, replace(CAPACITY, full=16)]
    monkeypatch.setattr("diffusion.engine.measure", lambda model, **_: found.pop(0))
    models = Residents()
    models.keep("toy", model)
    engine = Engine(models)
    engine.start("toy")
    wait(lambda: engine.capacity.full == 32)
    engine.measure_again("toy")
    wait(lambda: engine.capacity.full == 16)
    assert engine._to_measure is None
    engine.close()


@pytest.mark.parametrize("guidance", [-1.0, float("nan"), float("inf"), 21.0])
def test_a_guidance_that_cannot_be_used_makes_no_request(guidance):
    with pytest.raises(ValueError, match=rf"^guidance {guidance:g}; choose 0 to 20$"):
        Request("m", (0,), RECIPES[0], guidance=guidance)
