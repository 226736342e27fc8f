"""The update of one step in its paper's notation, with the numbers of this run.

Every sampler here is a table of rows x_s = A·x0 + B·eps + C·x0_previous + D·z. DDIM writes its
update so; DDPM and DPM-Solver++ write it with x_t in the place of eps, and
eps = (x_t - signal_t·x0) / noise_t turns one into the other.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path

from demo import wording
from diffusion import Schedule, Step, samplers
from diffusion.recipe import Recipe

ROOT = Path(__file__).parent.parent
DIGITS = 6  # of a coefficient

# What the letters of a formula are, in MathML.
X_T, X_S = "<msub><mi>x</mi><mi>t</mi></msub>", "<msub><mi>x</mi><mi>s</mi></msub>"
X0 = "<msub><mover><mi>x</mi><mo>^</mo></mover><mn>0</mn></msub>"
EPS = "<mover><mi>ε</mi><mo>^</mo></mover>"
X0_PREVIOUS = f"<msup>{X0}<mtext>before</mtext></msup>"
Z = "<mi>z</mi>"
PLUS, MINUS, EQUALS, ONE = "<mo>+</mo>", "<mo>−</mo>", "<mo>=</mo>", "<mn>1</mn>"


def _sub(base: str, index: str) -> str:
    return f"<msub>{base}<mi>{index}</mi></msub>"


def _root(*inside: str) -> str:
    return f"<msqrt>{''.join(inside)}</msqrt>"


def _fraction(above: str, below: str) -> str:
    return f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>"


def _of(inside: str) -> str:
    return f"<mo>(</mo>{inside}<mo>)</mo>"


ALPHA, BAR, SIGMA = "<mi>α</mi>", "<mover><mi>α</mi><mo>¯</mo></mover>", "<mi>σ</mi>"
ALPHA_S, BAR_S, BAR_T = _sub(ALPHA, "s"), _sub(BAR, "s"), _sub(BAR, "t")
DDPM_X0 = _fraction(_root(BAR_S) + _sub("<mi>β</mi>", "t"), ONE + MINUS + BAR_T)
DDPM_X = _fraction(_root(_sub(ALPHA, "t")) + _of(ONE + MINUS + BAR_S), ONE + MINUS + BAR_T)
H = "<msup><mi>e</mi><mrow><mo>−</mo><mi>h</mi></mrow></msup>"
HALF_R = _fraction(ONE, "<mn>2</mn><mi>r</mi>")
SOLVER_X = _fraction(_sub(SIGMA, "s"), _sub(SIGMA, "t"))
SOLVER_D = _of(ONE + MINUS + H) + ALPHA_S

# Of each sampler: where its formula stands, and its terms: the coefficient in the paper's
# letters, what it multiplies (letter, and name in diffusion.film.Sizes), and its number in a row.
Term = tuple[str, str, str, Callable[[Step, Schedule], float]]
FORMULAS: dict[str, tuple[str, tuple[Term, ...]]] = {
    "ddpm": (
        "DDPM, equation 7 and Algorithm 2, with α_t = ᾱ_t/ᾱ_s and β_t = 1 − α_t, as levels are "
        "skipped",
        (
            (DDPM_X0, X0, "x0", lambda row, schedule: _x0(row, schedule)),
            (DDPM_X, X_T, "x", lambda row, schedule: _x(row, schedule)),
            (_sub(SIGMA, "t"), Z, "z", lambda row, _: row.D),
        ),
    ),
    "ddim": (
        "DDIM, equation 12; its α is DDPM's ᾱ",
        (
            (_root(ALPHA_S), X0, "x0", lambda row, _: row.A),
            (
                _root(ONE, MINUS, ALPHA_S, MINUS, f"<msup>{SIGMA}<mn>2</mn></msup>"),
                EPS,
                "eps",
                lambda row, _: row.B,
            ),
            (SIGMA, Z, "z", lambda row, _: row.D),
        ),
    ),
    "dpmpp_2m": (
        "DPM-Solver++(2M), Algorithm 2; its α and σ are √ᾱ and √(1 − ᾱ), λ = ln(α/σ), "
        "h = λ_s − λ_t, r = (λ_t − λ_before)/h; the first and the last step without the 1/2r terms",
        (
            (SOLVER_X, X_T, "x", lambda row, schedule: _x(row, schedule)),
            (
                SOLVER_D + _of(ONE + PLUS + HALF_R),
                X0,
                "x0",
                lambda row, schedule: _x0(row, schedule),
            ),
            (MINUS + SOLVER_D + HALF_R, X0_PREVIOUS, "x0_previous", lambda row, _: row.C),
        ),
    ),
}
# Which functions compute the rows; the last one mixes them.
SOURCES = {
    "ddpm": (samplers.ddpm, samplers.ddim_step, samplers.mix),
    "ddim": (samplers.ddim_step, samplers.mix),
    "dpmpp_2m": (samplers.dpmpp_2m, samplers.mix),
}


def equation(recipe: Recipe, schedule: Schedule) -> dict:
    """For the page: the formula, and each term's coefficient in every row of the recipe's plan."""
    where, terms = FORMULAS[recipe.sampler]
    plan = recipe.plan(schedule)
    right = ""
    for coefficient, letter, _, _ in terms:
        joint = "" if not right or coefficient.startswith(MINUS) else PLUS
        right += f"{joint}<mrow>{coefficient}<mo>&#x2062;</mo>{letter}</mrow>"
    return {
        "where": where,
        "formula": f"<math display='block'>{X_S}{EQUALS}{right}</math>",
        "terms": [
            {
                "letter": f"<math>{letter}</math>",
                "of": name,
                "name": wording.TERMS[name],
                "values": [float(f"{number(row, schedule):.{DIGITS}g}") for row in plan],
            }
            for _, letter, name, number in terms
        ],
        "sources": [_source(function) for function in SOURCES[recipe.sampler]],
    }


def _x(row: Step, schedule: Schedule) -> float:
    """The coefficient of x_t once eps is written with it."""
    return row.B / schedule.noise[row.t].item()


def _x0(row: Step, schedule: Schedule) -> float:
    """The coefficient of x0 once eps is written with x_t."""
    return row.A - row.B * schedule.signal[row.t].item() / schedule.noise[row.t].item()


def _source(function: Callable) -> dict:
    """Where a function stands, its lines, and its address where the source is on the Hub."""
    lines, first = inspect.getsourcelines(function)
    file = Path(inspect.getsourcefile(function)).relative_to(ROOT).as_posix()
    last = first + len(lines) - 1
    space = os.environ.get("SPACE_ID")
    return {
        "name": f"{file}, lines {first} to {last}",
        "text": "".join(lines),
        "link": space
        and f"https://huggingface.co/spaces/{space}/blob/main/{file}#L{first}-L{last}",
    }
