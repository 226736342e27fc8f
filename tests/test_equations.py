"""The equations of the drawer are what the samplers compute, and what the papers say."""

import math

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

    x, previous = noise(schedule.T), None
    for step, frame in enumerate(sample(denoise, plan, x, noise)):
        previous = frame.x0 if previous is None else previous
        mixed = {
            "x": x, "x0": frame.x0, "eps": frame.eps, "x0_previous": previous,
            "z": noise(plan[step].s),
        }  # fmt: skip
        total = sum(term["values"][step] * mixed[term["of"]] for term in terms)
        torch.testing.assert_close(total, frame.x, rtol=1e-4, atol=1e-4)
        assert {term["of"] for term in terms} <= sizes(
            plan[step], x, frame, previous
        ).to_json().keys()
        x, previous = frame.x, frame.x0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_has_the_coefficients_of_equation_7(schedule, variance):
    recipe = Recipe("ddpm", 1000, variance=variance)
    x0, x, z = (term["values"] for term in equation(recipe, schedule)["terms"])
    beta, alpha_bar = schedule.beta.tolist(), schedule.alpha_bar.tolist()
    for step, t in enumerate(range(1000, 0, -1)):
        rest = 1 - alpha_bar[t]
        assert x0[step] == pytest.approx(math.sqrt(alpha_bar[t - 1]) * beta[t] / rest, rel=1e-4)
        shrunk = math.sqrt(1 - beta[t]) * (1 - alpha_bar[t - 1]) / rest
        assert x[step] == pytest.approx(shrunk, rel=1e-4, abs=1e-9)
        variances = {"small": (1 - alpha_bar[t - 1]) / rest * beta[t], "large": beta[t]}
        expected = variances[variance] if t > 1 else 0.0
        assert z[step] == pytest.approx(math.sqrt(expected), rel=1e-4)


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
