"""The plots of a results file: quality against calls, or against guidance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from diffusion.files import replacing
from diffusion.findings import manner, sampler_of
from diffusion.scales import scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MUTED, DDPM, DDIM = "#6B6862", "#C2410C", "#0F766E"
DOTTED = {"color": MUTED, "linewidth": 0.8, "linestyle": ":"}  # what the real pictures have
HUES = {"ddpm": DDPM, "ddim": DDIM, "dpmpp_2m": MUTED}


def plot(results: Mapping, path: Path) -> None:
    """Two plots side by side, as PNG; which two depends on what the rows differ in."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw = _against_guidance if _of_guidance(results) else _against_calls
    draw(results, left, right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=7, handlelength=3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def plot_title(results: Mapping) -> str:
    """What the plots show, in a few words."""
    if _of_guidance(results):
        return "Distance, and the share of what was asked, against guidance"
    return "Distance and kernel distance against calls"


def floor_name(results: Mapping) -> str:
    """Which real pictures stand beside the rows."""
    return "real, trained on" if "against" in results else "real, unseen"


def _of_guidance(results: Mapping) -> bool:
    """Whether one model's rows differ in guidance, and each sampler has one number of steps."""
    rows = list(results["rows"].values())
    numbers = {(sampler_of(row), row["steps"]) for row in rows}
    one_each = len(numbers) == len({sampler for sampler, _ in numbers})
    return len(results["models"]) == 1 and one_each and len({r["guidance"] for r in rows}) > 2


def _against_guidance(results: Mapping, left: Axes, right: Axes) -> None:
    """FD, and the mean share of what was asked; a line per sampler and manner of guidance."""
    first, floor = results["extractors"][0], results["floor"]
    scale = scale_of(first)
    for (sampler, how), rows in _guided(results["rows"].values()).items():
        rows = sorted(rows, key=lambda row: row["guidance"])
        style = {
            "marker": "o",
            "markersize": 3,
            "color": HUES[rows[0]["sampler"]],
            "linestyle": {"everywhere": "-", "raw eps": ":"}.get(how, "--"),
        }
        name = f"{sampler}, S {rows[0]['steps']}" + (f", {how}" if how != "everywhere" else "")
        distances = [scale.frechet(row["distances"][first]) for row in rows]
        left.plot([row["guidance"] for row in rows], distances, label=name, **style)
        read = [row for row in rows if "fidelity" in row]
        got = [fmean(row["fidelity"].values()) for row in read]
        right.plot([row["guidance"] for row in read], got, **style)
    if floor:
        left.axhline(scale.frechet(floor["distances"][first]), label=floor_name(results), **DOTTED)
        if "fidelity" in floor:
            right.axhline(fmean(floor["fidelity"].values()), **DOTTED)
    left.set(xlabel="guidance w", ylabel=f"FD ({first}){scale.told}", yscale="log")
    right.set(xlim=left.get_xlim(), xlabel="guidance w", ylabel="share of attributes as asked")


def _guided(rows: Iterable[Mapping]) -> dict[tuple[str, str], list[Mapping]]:
    """Rows by sampler and manner; where guidance does nothing yet, each manner begins."""
    found = {}
    samplers: dict[str, list[Mapping]] = {}
    for row in rows:
        samplers.setdefault(sampler_of(row), []).append(row)
    for sampler, own in samplers.items():
        for how in dict.fromkeys(filter(None, map(manner, own))) or ["everywhere"]:
            found[sampler, how] = [row for row in own if manner(row) in ("", how)]
    return found


def _against_calls(results: Mapping, left: Axes, right: Axes) -> None:
    """FD and KID, a line per sampler and model, the floor dotted."""
    first = results["extractors"][0]
    scale = scale_of(first)
    for (model, sampler), rows in _series(results["rows"].values()):
        rows = sorted(rows, key=lambda row: row["calls"])
        calls = [row["calls"] for row in rows]
        values = [row["distances"][first] for row in rows]
        several = len(results["models"]) > 1
        style = {"marker": "o", "markersize": 3, "label": model if several else sampler}
        if not several:
            style["color"] = HUES[rows[0]["sampler"]]
            style["alpha"] = 1 - 0.6 * rows[0]["eta"] * (rows[0]["sampler"] == "ddim")
            style["linestyle"] = "--" if rows[0]["variance"] == "large" else "-"
            if "finish" in rows[0]:
                style |= {"markerfacecolor": "none", "markersize": 6, "linestyle": ":"}
        left.plot(calls, [scale.frechet(value) for value in values], **style)
        kids, errors = zip(*map(scale.kernel, values), strict=True)
        right.errorbar(calls, kids, errors, capsize=2, **style)
    names = f"FD ({first}){scale.told}", f"KID × {scale.kernel_told}"
    for axes, name in zip((left, right), names, strict=True):
        axes.set(xlabel="calls of the network per picture", ylabel=name, xscale="log")
    left.set_yscale("log")
    right.set_yscale("symlog", linthresh=5)
    if results["floor"]:
        floor = results["floor"]["distances"][first]
        left.axhline(scale.frechet(floor), label=floor_name(results), **DOTTED)
        right.axhline(scale.kernel(floor)[0], **DOTTED)


def _series(rows: Iterable[Mapping]) -> list[tuple[tuple[str, str], list[Mapping]]]:
    found: dict[tuple[str, str], list[Mapping]] = {}
    for row in rows:
        label = sampler_of(row) + (f", w {row['guidance']:g}" if row["guidance"] else "")
        how = manner(row)
        label += f", {how}" if how not in ("", "everywhere") else ""
        found.setdefault((row["model"], label), []).append(row)
    return list(found.items())
