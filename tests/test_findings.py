"""Sentences about measured rows are computed from them."""

import pytest
from stand_ins import measured

from diffusion.findings import table_one

# CIFAR-10 in Table 1 of the DDIM paper: FID at S = 10, 20, 50, 100 and 1000.
STEPS = (10, 20, 50, 100, 1000)
PAPER = {
    ("ddim", 0.0, "small"): (13.36, 6.84, 4.67, 4.16, 4.04),
    ("ddim", 0.2, "small"): (14.04, 7.11, 4.77, 4.25, 4.09),
    ("ddim", 0.5, "small"): (16.66, 8.35, 5.25, 4.46, 4.29),
    ("ddim", 1.0, "small"): (41.07, 18.36, 8.01, 5.78, 4.73),
    ("ddpm", 0.0, "large"): (367.43, 133.37, 32.72, 9.99, 3.17),
}
FALLS, RISES, WORST, ENOUGH = range(4)


def row(sampler, eta, variance, steps, distance, **changed):
    """One whose Haar distance is shown as `distance`, which is 1,000 times what it is."""
    made = measured(sampler, steps, distance, eta=eta, variance=variance, **changed)
    made["distances"]["haar"]["frechet"] /= 1000
    return made


@pytest.fixture
def paper():
    """The paper's table as rows."""
    return {
        (*how, steps): row(*how, steps, distance)
        for how, distances in PAPER.items()
        for steps, distance in zip(STEPS, distances, strict=True)
    }


def found(rows):
    return [str(finding) for finding in table_one(rows.values(), "haar")]


def test_the_papers_own_table_has_its_shape_except_for_its_twenty_steps(paper):
    assert found(paper) == [
        "FD falls as S grows, for every sampler: holds (S = 10, 20, 50, 100, 1000).",
        "FD rises with η at equal S: holds (S = 10, 20, 50, 100, 1000).",
        "The large variance is the worst at few steps (S ≤ 20): holds (S = 10, 20).",
        "DDIM with 20 steps is within 25 % of DDIM with 100 (+64 %): does not hold. "
        "At S = 20 it has 6.8, at S = 100 4.2.",
    ]


def test_a_row_that_contradicts_is_named(paper):
    paper["ddim", 0.0, "small", 50] = row("ddim", 0.0, "small", 50, 7.9)
    falls, rises, *_ = found(paper)
    assert falls.endswith("does not hold. At S = 50 DDIM η 0 has 7.9, at S = 20 only 6.8.")
    assert "does not hold. At S = 50 DDIM η 0 has 7.9 and DDIM η 0.2 has 4.8." in rises
    assert rises.endswith("which can outweigh what it costs.")


def test_ddpm_with_the_small_variance_counts_as_ddim_with_eta_one(paper):
    for steps in STEPS:
        ddim = paper.pop(("ddim", 1.0, "small", steps))
        paper["ddpm", 0.0, "small", steps] = {**ddim, "sampler": "ddpm", "eta": 0.0}
    assert "holds" in found(paper)[RISES]
    paper["ddpm", 0.0, "small", 100] = row("ddpm", 0.0, "small", 100, 3.0)
    assert "At S = 100 DDIM η 0.5 has 4.5 and DDPM small has 3.0." in found(paper)[RISES]
    # Where both were measured, they are one.
    paper["ddim", 1.0, "small", 100] = row("ddim", 1.0, "small", 100, 3.0)
    assert found(paper)[RISES].count("3.0") == 1


def test_a_contradiction_that_is_within_the_error_of_the_kernel_distance_is_said_to_be(paper):
    paper["ddim", 0.0, "small", 50] = row("ddim", 0.0, "small", 50, 7.4)
    measured = paper["ddim", 0.0, "small", 50]["distances"]["haar"]
    measured["kid"], measured["kid_error"] = 0.10, 0.05  # S = 20: 0.07 ± 0.01
    falls, *_ = found(paper)
    assert falls.endswith("at S = 20 only 6.8 (KID is the same within its error).")
    measured["kid_error"] = 0.02
    falls, *_ = found(paper)
    assert falls.endswith("at S = 20 only 6.8.")


def test_the_large_variance_has_to_be_the_worst_at_every_small_number_of_steps(paper):
    paper["ddpm", 0.0, "large", 20] = row("ddpm", 0.0, "large", 20, 10.0)
    worst = found(paper)[WORST]
    assert worst.endswith("does not hold. At S = 20 DDPM large has 10.0 and DDIM η 1 has 18.4.")


def test_a_claim_that_holds_only_within_the_error_of_the_kernel_distance_is_said_to(paper):
    paper["ddpm", 0.0, "large", 20] = row("ddpm", 0.0, "large", 20, 18.4)
    assert found(paper)[WORST].endswith(
        "holds (S = 10, 20); at S = 20 KID is the same within its error."
    )


def test_twenty_steps_may_be_better_than_a_hundred_by_any_amount(paper):
    paper["ddim", 0.0, "small", 20] = row("ddim", 0.0, "small", 20, 2.08)
    assert found(paper)[ENOUGH] == (
        "DDIM with 20 steps is within 25 % of DDIM with 100 (−50 %): holds (S = 20, 100)."
    )


def test_what_was_not_measured_is_said_to_be_so():
    assert found({1: row("dpmpp_2m", 0.0, "small", 10, 5.0)}) == [
        "FD falls as S grows, for every sampler: not measured.",
        "FD rises with η at equal S: not measured.",
        "The large variance is the worst at few steps (S ≤ 20): not measured.",
        "DDIM with 20 steps is within 25 % of DDIM with 100: not measured.",
    ]


def test_guided_rows_and_other_spacings_are_passed_over(paper):
    others = {
        "guided": row("ddim", 0.0, "small", 2000, 99.0, guidance=2.0),
        "quadratic": row("ddim", 0.0, "small", 2000, 99.0, spacing="quadratic"),
    }
    assert found(paper | others) == found(paper)
    assert found(others) == []
