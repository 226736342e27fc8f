"""Who computes next: half for the nearly done, half for those who wait longest."""

from dataclasses import replace

import pytest
import torch

from diffusion import DiffusionModel, Schedule, UNet, batching, compiled, graphs
from diffusion.batching import SIZES, capacity
from diffusion.slots import Capacity, Claim, share

MACHINE = Capacity(quick=4, full=16, images_per_second=100.0, in_flight=64)


@pytest.fixture
def model(tiny):
    return DiffusionModel(UNet(tiny), Schedule.cosine())


def test_everybody_computes_when_there_is_room():
    assert share([Claim(4, 90, 3), Claim(1, 5, 7)], slots=8, tick=1) == [4, 1]


def test_a_short_request_has_a_slot_in_every_tick():
    claims = [Claim(4, 1000, served) for served in range(15)]
    for tick in range(4):
        assert share([*claims, Claim(1, 20, tick)], slots=4, tick=tick)[-1] == 1


def test_a_single_slot_goes_to_the_shortest_and_to_the_longest_wait_in_turn():
    claims = [Claim(1, 20, served=9), Claim(1, 1000, served=2)]
    assert [share(claims, 1, tick) for tick in (10, 11)] == [[0, 1], [1, 0]]


def test_sixteen_faces_take_no_more_of_the_second_half_than_one():
    claims = [Claim(16, 500, served=0), Claim(4, 500, served=1), Claim(4, 500, served=2)]
    assert sum(share(claims, 8, tick=0)) == 8
    assert share(claims, 6, tick=0) == [4, 1, 1]  # 3 as the first of equals, then one each


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_nobody_starves(slots):
    served, given = [0] * 9, [0] * 9
    for tick in range(1, 200):
        claims = [Claim(1 + i, 10 * (i + 1), served[i]) for i in range(9)]
        for i, count in enumerate(share(claims, slots, tick)):
            assert 0 <= count <= claims[i].images
            if count:
                served[i], given[i] = tick, given[i] + count
    assert min(given) >= 199 * slots / 2 / 9 / 3


def test_no_more_slots_are_given_than_there_are():
    for slots in range(1, 12):
        claims = [Claim(3, 7, 0), Claim(2, 9, 1), Claim(4, 9, 2)]
        assert sum(share(claims, slots, tick=3)) == min(slots, 9)


def test_equally_long_requests_fill_the_largest_batch():
    assert MACHINE.slots([Claim(4, 50, 0)] * 8) == 16


def test_equals_of_which_one_is_ahead_still_fill_it():
    ahead, others = Claim(4, 3, 0, calls=50), [Claim(4, 40, 0, calls=50)] * 7
    assert MACHINE.slots([ahead, *others]) == 16


def test_a_short_one_among_long_ones_is_not_kept_waiting_by_a_large_batch():
    assert MACHINE.slots([Claim(4, 1000, 0)] * 15 + [Claim(1, 20, 0)]) == 4


def test_what_does_not_fit_of_one_visitor_is_cut_evenly():
    assert MACHINE.slots([Claim(18, 50, 0)]) == 9


def test_with_several_visitors_every_batch_is_full():
    # 26 of 32 images are still in their row, the others in their next: there is always more.
    assert MACHINE.slots([Claim(4, 50, 0)] * 5 + [Claim(2, 50, 0)] * 3) == 16
    assert MACHINE.slots([Claim(4, 50, 0), Claim(2, 50, 0)]) == 6


def test_the_capacity_is_read_off_measured_seconds():
    cpu = capacity({1: 0.010, 2: 0.016, 4: 0.026, 8: 0.048, 16: 0.096}, picture_bytes=3_072)
    assert (cpu.quick, cpu.full) == (4, 8)  # 16 at once bring nothing more
    assert cpu.images_per_second == pytest.approx(8 / 0.048)
    assert cpu.in_flight == int(2 * 8 / 0.048)


def test_what_is_in_flight_is_bounded_by_memory_too():
    gpu = capacity({1: 0.002, 16: 0.00202, 64: 0.0021}, picture_bytes=12_288)
    assert (gpu.quick, gpu.full) == (64, 64)
    assert gpu.in_flight == 2**31 // (250 * 3 * 12_288)  # three lenses


def test_only_batches_that_no_backend_cuts_or_fills_up_are_tried():
    assert set(SIZES) <= set(graphs.SIZES)
    assert all(len(compiled.parts(size)) == 1 for size in SIZES if size <= compiled.LARGEST)


def test_what_disturbs_the_machine_for_a_moment_does_not_decide(monkeypatch, model):
    calls = []

    def timed(denoise, x, t):
        calls.append(len(x))
        disturbed = 3 <= len(calls) <= 4  # both calls of two images in the first pass
        return (5 + 2 * min(len(x), 8) + 8 * max(len(x) - 8, 0)) * (10 if disturbed else 1) / 1000

    monkeypatch.setattr(batching, "_timed", timed)
    assert batching.measure(model).full == 8
    assert calls[:8] == [1, 1, 2, 2, 1, 1, 2, 2]  # the first pass saw nothing gained by two


@pytest.mark.parametrize(
    "full", [torch.OutOfMemoryError(), RuntimeError("MPS backend out of memory")], ids=repr
)
def test_a_machine_without_memory_for_more_is_measured_as_far_as_it_goes(monkeypatch, model, full):
    def timed(denoise, x, t):
        if len(x) > 4:
            raise full
        return 0.01 + 0.001 * len(x)

    monkeypatch.setattr(batching, "_timed", timed)
    assert batching.measure(model).full == 4


def test_a_measurement_that_is_given_up_tries_no_further_size(monkeypatch, model):
    calls = []

    def timed(denoise, x, t):
        calls.append(len(x))
        return 0.01 + 0.001 * len(x)

    monkeypatch.setattr(batching, "_timed", timed)
    batching.measure(model, given_up=lambda: 4 in calls)
    assert max(calls) == 4


def test_what_every_image_takes_beside_the_network_counts_among_those_who_wait(model, monkeypatch):
    monkeypatch.setattr(batching, "_timed", lambda denoise, x, t: 0.001)  # whatever the batch
    monkeypatch.setattr(batching, "IMAGE", 0.0)
    assert batching.measure(model).quick == max(SIZES)
    monkeypatch.setattr(batching, "IMAGE", 0.001)
    assert batching.measure(model).quick < 8


def test_images_with_guidance_take_two_rows_of_the_batch_each():
    assert MACHINE.slots([Claim(16, 50, 0, rows=2)]) == 8
    assert MACHINE.slots([Claim(16, 50, 0, rows=2)] * 4) == 8
    assert MACHINE.slots([Claim(8, 50, 0, rows=2), Claim(8, 50, 0)]) == 10
    assert replace(MACHINE, full=1).slots([Claim(16, 50, 0, rows=2)]) == 1
