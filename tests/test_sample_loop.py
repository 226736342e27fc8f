from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diffusion import Denoiser, Noise, Schedule, ddim, ddpm, dpmpp_2m, mix, sample
from diffusion.samplers import noise_levels

SCHEDULE = Schedule.cosine(100)
LEVELS = SCHEDULE.levels(10)


def shrink(x, t):
    """A denoiser of x and t for any shape."""
    time = (t / 100).to(x).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x) * (1 - time), x * time


def zeros_like(x):
    return lambda s: torch.zeros_like(x)


def test_there_is_one_frame_per_step_with_the_levels_of_its_row(start, shared):
    frames = list(sample(shrink, ddpm(SCHEDULE, LEVELS), start, shared))
    assert [frame.t for frame in frames] == list(LEVELS[:-1])
    assert [frame.s for frame in frames] == list(LEVELS[1:])


@pytest.mark.parametrize("plan", [ddpm(SCHEDULE, LEVELS), dpmpp_2m(SCHEDULE, LEVELS)])
def test_a_frame_holds_the_mixture_and_what_it_was_mixed_from(start, shared, plan):
    x, x0_previous = start, None
    for row, frame in zip(plan, sample(shrink, plan, start, shared), strict=True):
        x0, eps = shrink(x, torch.full((5,), row.t))
        torch.testing.assert_close((frame.x0, frame.eps), (x0, eps))
        expected = row.A * x0 + row.B * eps
        if row.C:
            expected = expected + row.C * x0_previous
        assert frame.x_t is x
        assert frame.x0_previous is (frame.x0 if x0_previous is None else x0_previous)
        if row.D:
            expected = expected + row.D * shared(row.s)
        torch.testing.assert_close(frame.x, expected)
        x, x0_previous = frame.x, frame.x0


def test_every_image_is_denoised_at_the_level_of_the_row(start, shared):
    asked = []

    def denoise(x, t):
        assert t.dtype == torch.int64
        asked.append(t.tolist())
        return shrink(x, t)

    list(sample(denoise, ddim(SCHEDULE, LEVELS), start, shared))
    assert asked == [[t] * 5 for t in LEVELS[:-1]]


@pytest.mark.parametrize("shape", [(4,), (4, 5), (2, 3, 8, 8), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_shape_and_both_precisions_come_through(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    denoise = Denoiser(
        lambda x, time: torch.sin(x + time.reshape(-1, *[1] * (x.ndim - 1))), SCHEDULE
    )
    for frame in sample(denoise, ddpm(SCHEDULE, LEVELS), x, zeros_like(x)):
        for tensor in (frame.x, frame.x0, frame.eps):
            assert tensor.shape == shape
            assert tensor.dtype == dtype
            assert tensor.isfinite().all()


def test_noise_is_asked_for_only_where_it_is_added(start, shared):
    plan = ddpm(SCHEDULE, LEVELS)
    list(sample(shrink, plan, start, shared))
    assert shared.asked == [s for s in LEVELS[1:] if s > 0]
    assert noise_levels(plan) == [100, *shared.asked]
    shared.asked.clear()
    list(sample(shrink, ddim(SCHEDULE, LEVELS), start, shared))
    list(sample(shrink, dpmpp_2m(SCHEDULE, LEVELS), start, shared))
    assert shared.asked == []
    assert noise_levels(dpmpp_2m(SCHEDULE, LEVELS)) == [100]


@pytest.mark.parametrize("name", ["x", "x0"])
def test_a_sampling_holds_on_to_two_steps_alone(start, shared, name):
    seen = []
    for frame in sample(shrink, ddpm(SCHEDULE, LEVELS), start, shared):
        seen.append(weakref.ref(getattr(frame, name)))
        assert sum(tensor() is not None for tensor in seen) <= 2


def test_noise_of_another_precision_is_brought_to_the_pictures(start):
    frames = sample(shrink, ddpm(SCHEDULE, LEVELS), start, lambda s: torch.ones(5, 6))
    assert all(frame.x.dtype == torch.float64 for frame in frames)


def test_the_first_picture_is_left_as_it_was(start, shared):
    before = start.clone()
    list(sample(shrink, ddpm(SCHEDULE, LEVELS), start, shared))
    assert torch.equal(start, before)


def test_no_gradients_are_recorded_while_sampling(start, shared):
    weight = torch.ones(6, dtype=torch.float64, requires_grad=True)
    for frame in sample(
        lambda x, t: (weight * x, x), ddim(SCHEDULE, LEVELS), start.requires_grad_(), shared
    ):
        assert not frame.x.requires_grad
        assert not frame.x0.requires_grad


def test_gradients_stay_on_for_the_caller_between_two_frames(start, shared):
    frames = sample(shrink, ddim(SCHEDULE, LEVELS), start, shared)
    assert torch.is_grad_enabled()
    for _ in frames:
        assert torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_a_caller_without_gradients_keeps_it_that_way(start, shared):
    with torch.no_grad():
        for _ in sample(shrink, ddim(SCHEDULE, LEVELS), start, shared):
            assert not torch.is_grad_enabled()


def test_a_sampling_may_move_between_threads_and_leaves_their_gradients_on(start, shared):
    def inside(x, t):
        assert not torch.is_grad_enabled()
        return shrink(x, t)

    def step(frames):
        before = torch.is_grad_enabled()
        return next(frames).x, before, torch.is_grad_enabled()

    plan = ddpm(SCHEDULE, LEVELS)
    *_, alone = sample(shrink, plan, start, shared)
    frames = sample(inside, plan, start, shared)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        for i in range(len(plan)):
            x, before, after = (one, other)[i % 2].submit(step, frames).result()
            assert before
            assert after
    assert torch.is_grad_enabled()
    assert torch.equal(x, alone.x)


def test_leaving_in_the_middle_leaves_gradients_on(start, shared):
    frames = sample(shrink, ddim(SCHEDULE, LEVELS), start, shared)
    next(frames)
    frames.close()
    assert torch.is_grad_enabled()


def test_mix_takes_a_row_per_image():
    """Rows of different samplers share a batch."""
    x0, eps, previous, z = (torch.randn(3, 2) for _ in range(4))
    plans = [ddim(SCHEDULE, LEVELS), ddpm(SCHEDULE, LEVELS), dpmpp_2m(SCHEDULE, LEVELS)]
    rows = [plan[4] for plan in plans]
    columns = (torch.tensor([getattr(row, name) for row in rows])[:, None] for name in "ABCD")
    together = mix(*columns, x0, eps, previous, z)
    for i, row in enumerate(rows):
        alone = mix(row.A, row.B, row.C, row.D, x0[i], eps[i], previous[i], z[i])
        torch.testing.assert_close(together[i], alone)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_on_a_gpu_the_same_pictures_come_out():
    plan, shape = ddpm(SCHEDULE, LEVELS), (3, 8, 8)
    ends = []
    for device in ("cpu", "cuda"):
        noise = Noise(range(4), shape, device)
        *_, last = sample(shrink, plan, noise(SCHEDULE.T), noise)
        assert last.x.device.type == device
        ends.append(last.x.cpu())
    torch.testing.assert_close(*ends, atol=1e-4, rtol=0)
