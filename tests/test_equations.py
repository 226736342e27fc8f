"""The equations of the drawer are what the samplers compute, and what the papers say."""

import math
from itertools import pairwise

import pytest
import torch

from demo.equations import equation
from diffusion import Noise, Schedule, sample
from diffusion.film import sizes
from diffusion.recipe import Recipe

SCHEDULES = (Schedule.cosine(), Schedule.linear())
RECIPES = (
    Recipe("ddpm", 12),
    Recipe("ddpm", 12, variance="large"),
    Recipe("ddim", 12),
    Recipe("ddim", 12, eta=0.5, spacing="quadratic"),
    Recipe("dpmpp_2m", 12),
)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_terms_of_the_drawer_add_up_to_the_step(recipe, schedule):
    terms = equation(recipe, schedule)["terms"]
    plan, noise = recipe.plan(schedule), Noise([3], (3, 8, 8))

    def denoise(x, t):
        signal, rest = schedule.signal[t].float().item(), schedule.noise[t].float().item()
        x0 = torch.tanh(3 * x)
        return x0, (x - signal * x0) / rest

    for step, frame in enumerate(sample(denoise, plan, noise(schedule.T), noise)):
        mixed = {
            "x": frame.x_t, "x0": frame.x0, "eps": frame.eps, "x0_previous": frame.x0_previous,
            "z": noise(plan[step].s),
        }  # fmt: skip
        total = sum(term["values"][step] * mixed[term["of"]] for term in terms)
        torch.testing.assert_close(total, frame.x, rtol=1e-4, atol=1e-4)
        assert {term["of"] for term in terms} <= sizes(plan[step], frame).to_json().keys()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [12, 1000])
def test_ddpm_has_the_coefficients_of_equation_7(schedule, variance, steps):
    recipe = Recipe("ddpm", steps, variance=variance)
    shown = equation(recipe, schedule)
    assert "with α_t = ᾱ_t/ᾱ_s and β_t = 1 − α_t" in shown["where"]
    x0, x, z = (term["values"] for term in shown["terms"])
    alpha_bar = schedule.alpha_bar.tolist()
    for step, (t, s) in enumerate(pairwise(schedule.levels(steps))):
        alpha = alpha_bar[t] / alpha_bar[s]
        beta = 1 - alpha
        if steps == 1000:
            assert beta == pytest.approx(schedule.beta[t].item())
        rest = 1 - alpha_bar[t]
        assert x0[step] == pytest.approx(math.sqrt(alpha_bar[s]) * beta / rest, rel=1e-4)
        shrunk = math.sqrt(alpha) * (1 - alpha_bar[s]) / rest
        assert x[step] == pytest.approx(shrunk, rel=1e-4, abs=1e-9)
        variances = {"small": (1 - alpha_bar[s]) / rest * beta, "large": beta}
        expected = variances[variance] if s > 0 else 0.0
        assert z[step] == pytest.approx(math.sqrt(expected), rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dpm_solver_has_the_coefficients_that_its_letters_mean(schedule):
    shown = equation(Recipe("dpmpp_2m", 12), schedule)
    assert "λ = ln(α/σ), h = λ_s − λ_t, r = (λ_t − λ_before)/h" in shown["where"]
    assert "the first and the last step without the 1/2r terms" in shown["where"]
    x, x0, before = (term["values"] for term in shown["terms"])
    alpha, sigma, levels = schedule.signal, schedule.noise, schedule.levels(12)
    log_snr = torch.log(alpha / sigma)
    for step, (t, s) in enumerate(pairwise(levels)):
        h = log_snr[s] - log_snr[t]
        factor = ((1 - torch.exp(-h)) * alpha[s]).item()
        half_r = 0.0
        if 0 < step < 11:
            half_r = (h / (log_snr[t] - log_snr[levels[step - 1]]) / 2).item()
        assert x[step] == pytest.approx((sigma[s] / sigma[t]).item(), rel=1e-4, abs=1e-9)
        assert x0[step] == pytest.approx(factor * (1 + half_r), rel=1e-4)
        assert before[step] == pytest.approx(-factor * half_r, rel=1e-4)


def test_formulas_are_well_formed_and_sources_are_the_functions(monkeypatch):
    from xml.etree import ElementTree

    for recipe in RECIPES:
        shown = equation(recipe, SCHEDULES[0])
        ElementTree.fromstring(shown["formula"].replace("&#x2062;", ""))
        for term in shown["terms"]:
            ElementTree.fromstring(term["letter"])
            assert len(term["values"]) == 12
        for source in shown["sources"]:
            assert source["text"].startswith("def ")
            assert source["name"].startswith("diffusion/samplers.py, lines ")
            assert source["link"] is None
    monkeypatch.setenv("SPACE_ID", "somebody/cartoons")
    link = equation(RECIPES[0], SCHEDULES[0])["sources"][0]["link"]
    assert link.startswith(
        "https://huggingface.co/spaces/somebody/cartoons/blob/main/diffusion/samplers.py#L"
    )
