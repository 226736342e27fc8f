"""Our tables walk the same path as diffusers' schedulers, in float64.

diffusers counts levels from 0 and keeps float32 tables; its timestep is our level - 1, and its
tables are overwritten with ours, so that only the samplers' own arithmetic is compared.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from diffusion import Denoiser, Schedule, ddim, ddpm, dpmpp_2m, sample

SCHEDULE = Schedule.linear(1000)
EXACT = {"atol": 1e-9, "rtol": 0}


def like_ours(scheduler, levels: tuple[int, ...]):
    """Give a diffusers scheduler our float64 table, and our levels where it rounds its own."""
    S = len(levels) - 1
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar[1:].clone()
    scheduler.set_timesteps(S)
    ours = torch.tensor(levels[:-1]) - 1
    if 1000 % S == 0:
        assert torch.equal(scheduler.timesteps, ours)
    scheduler.timesteps = ours
    return scheduler


def our_path(network, plan, x, noise, prediction: str = "eps", clip: bool = False) -> list[Tensor]:
    denoise = Denoiser(network, SCHEDULE, prediction, clip=clip)
    return [frame.x for frame in sample(denoise, plan, x, noise)]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("S", [1, 10, 50, 1000])
def test_ddim_walks_the_path_of_diffusers(toy, start, shared, S, eta, clip):
    levels = SCHEDULE.levels(S)
    theirs = like_ours(DDIMScheduler(timestep_spacing="trailing", clip_sample=clip), levels)
    x, path = start, []
    for t, s in zip(theirs.timesteps, levels[1:], strict=True):
        output = toy(x, torch.full((5,), t + 1))
        step = theirs.step(
            output,
            t,
            x,
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=shared(s) if eta else None,
        )
        x = step.prev_sample
        path.append(x)
    ours = our_path(toy, ddim(SCHEDULE, levels, eta), start, shared, clip=clip)
    torch.testing.assert_close(torch.stack(ours), torch.stack(path), **EXACT)


@pytest.mark.parametrize(("prediction", "theirs_too"), [("v", "v_prediction"), ("x0", "sample")])
def test_ddim_agrees_with_diffusers_whatever_the_network_predicts(
    toy, start, shared, prediction, theirs_too
):
    levels = SCHEDULE.levels(50)
    theirs = like_ours(
        DDIMScheduler(timestep_spacing="trailing", prediction_type=theirs_too), levels
    )
    x = start
    for t in theirs.timesteps:
        output = toy(x, torch.full((5,), t + 1))
        x = theirs.step(output, t, x, use_clipped_model_output=True).prev_sample
    *_, ours = our_path(toy, ddim(SCHEDULE, levels), start, shared, prediction, clip=True)
    torch.testing.assert_close(ours, x, **EXACT)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("S", "variance"),
    [(1, "small"), *((S, v) for S in (7, 10, 50, 333, 1000) for v in ("small", "large"))],
)
def test_ddpm_walks_the_path_of_diffusers(toy, start, shared, monkeypatch, S, variance, clip):
    levels = SCHEDULE.levels(S)
    theirs = like_ours(
        DDPMScheduler(
            timestep_spacing="trailing", variance_type=f"fixed_{variance}", clip_sample=clip
        ),
        levels,
    )
    landing = iter(levels[1:])
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor",
        lambda *_, **__: shared(next(landing)),
    )
    x, path = start, []
    for t in theirs.timesteps:
        output = toy(x, torch.full((5,), t + 1))
        x = theirs.step(output, t, x).prev_sample
        path.append(x)
    ours = our_path(toy, ddpm(SCHEDULE, levels, variance), start, shared, clip=clip)
    # Theirs still adds noise when it lands on the clean image from above its timestep 0; the
    # small variance is clamped to 1e-20 there, the large one is not.
    end = S - 1 if variance == "large" and S < 1000 else S
    assert len(ours) == len(path) == S
    for mine, other in zip(ours[:end], path[:end], strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.mark.parametrize("S", [1, 2, 5, 10, 20, 50])
def test_dpmpp_2m_walks_the_path_of_diffusers(toy, start, shared, S):
    levels = SCHEDULE.levels(S)
    theirs = like_ours(
        DPMSolverMultistepScheduler(
            timestep_spacing="trailing",
            algorithm_type="dpmsolver++",
            solver_type="midpoint",
            solver_order=2,
            final_sigmas_type="zero",
            prediction_type="sample",
        ),
        levels,
    )
    sigma = SCHEDULE.noise[list(levels)] / SCHEDULE.signal[list(levels)]
    assert theirs.sigmas.shape == sigma.shape
    theirs.sigmas = sigma  # theirs is rounded to float32
    x, path = start, []
    for t in theirs.timesteps:
        output = torch.tanh(toy(x, torch.full((5,), t + 1)))
        x = theirs.step(output, t, x).prev_sample
        path.append(x)
    ours = our_path(
        lambda x, time: torch.tanh(toy(x, time)),
        dpmpp_2m(SCHEDULE, levels),
        start,
        shared,
        prediction="x0",
    )
    # Their step rounds the picture to float32.
    torch.testing.assert_close(torch.stack(ours), torch.stack(path), atol=1e-6, rtol=0)
