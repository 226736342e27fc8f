"""How good the shipped model's pictures are: the chart of measured quality under More."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from demo import markup, settings, wording
from demo.markup import shown
from diffusion.recipe import Recipe
from diffusion.results import FILE, of_weights, read
from diffusion.scales import scale_of

SCRIPTS = ("words.js", "quality.js")
SPACING = "uniform"  # of the curves: one kind of levels is enough for a small chart
# Drawn in this order: DDIM with η 1 is DDPM, and the curve on top is the one that has the name.
BACK_TO_FRONT = ("dpmpp_2m", "ddim", "ddpm_large", "ddpm")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """Measured distances of one sampler, set in one way."""

    sampler: str  # one of settings.SAMPLERS
    eta: float  # of ddim
    points: tuple[tuple[int, float], ...]  # (calls per picture, squared Fréchet distance), by calls

    def is_twin_of(self, other: Curve) -> bool:
        """Whether both lie on one line, as far as both were measured."""
        mine, others = dict(self.points), dict(other.points)
        both = mine.keys() & others.keys()
        return bool(both) and all(mine[calls] == others[calls] for calls in both)


@dataclass(frozen=True)
class Quality:
    """What was measured of a model, and the distance of as many real pictures: the floor."""

    curves: tuple[Curve, ...]
    floor: float
    count: int  # pictures behind every distance
    extractor: str  # of the features that are compared

    def to_json(self) -> dict[str, Any]:
        """What the chart's script needs: curves, floor, and words for what the form says."""
        names = {
            sampler: wording.name(Recipe(**chosen)) for sampler, chosen in settings.SAMPLERS.items()
        }
        return {
            "curves": [
                {**asdict(curve), "label": label}
                for curve, label in zip(self.curves, self._labels(), strict=True)
            ],
            "floor": self.floor,
            "spacing": SPACING,
            "names": names,
            "words": wording.QUALITY,
        }

    def _labels(self) -> list[str]:
        """A label for each curve; of two that lie on one line, the one on top has both."""
        labels = [wording.curve(curve.sampler, curve.eta) for curve in self.curves]
        for above, curve in enumerate(self.curves):
            for below, other in enumerate(self.curves[:above]):
                if labels[below] and curve.is_twin_of(other):
                    labels[above] += f" = {labels[below]}"
                    labels[below] = ""
        return labels


def load(folder: str | Path, weights: str) -> Quality | None:
    """What a model's folder tells of these weights; None when it tells nothing of them."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        results = read(path)
        extractor = results["extractors"][0]
        floor = scale_of(extractor).frechet(results["floor"]["distances"][extractor])
        curves = _curves(of_weights(results, weights), extractor)
        return Quality(curves, floor, results["count"], extractor) if curves else None
    except (LookupError, TypeError, ValueError) as error:
        log.warning("no chart of the model's quality: %s", error)
        return None


def _curves(rows: Iterable[Mapping], extractor: str) -> tuple[Curve, ...]:
    """A curve for every sampler and setting of it, of pictures drawn at random."""
    found: dict[tuple[str, float], dict[int, float]] = {}
    for row in rows:
        named = {field.name: row[field.name] for field in fields(Recipe) if field.name in row}
        recipe = Recipe(**named)
        plain = recipe.clip and recipe.finish == "none" and not row["guidance"]
        if recipe.spacing == SPACING and plain:
            points = found.setdefault((settings.choice(recipe), recipe.eta), {})
            points[row["calls"]] = scale_of(extractor).frechet(row["distances"][extractor])
    curves = [Curve(*key, tuple(sorted(points.items()))) for key, points in found.items()]
    return tuple(sorted(curves, key=lambda curve: (BACK_TO_FRONT.index(curve.sampler), -curve.eta)))


def create(quality: Quality) -> gr.HTML:
    """The chart, inside the current Blocks; its marks follow the form."""
    words = {
        "title": wording.QUALITY["title"],
        "floor": shown(wording.floor(quality.floor, quality.count, quality.extractor)),
    }
    return gr.HTML(
        value=quality.to_json(),
        html_template=markup.template("quality", words),
        js_on_load=markup.text(*SCRIPTS),
        apply_default_css=False,
        elem_id="quality",
        show_label=False,
    )
