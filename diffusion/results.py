"""Measured rows as files: JSON that grows row by row, a Markdown table and a plot beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from diffusion.cache import cache_dir
from diffusion.files import read_text, write_json, write_text
from diffusion.findings import manner, sampler_of, table_one
from diffusion.plots import floor_name, plot, plot_title
from diffusion.scales import scale_of
from diffusion.train_config import images_seen

FORMAT = "cartoon-evaluation/1"
FILE = "results.json"  # in a model's folder: how good that model is
LATER = {  # what a file has from its first rows that ask for attributes on; how others differ
    "reader": "with another reader of attributes",
    "chance": "with other labels of the pictures",
}
CRISP = (
    " Crisp: after the last step edges were sharpened and plain areas made plain, as `--finish "
    "crisp` does."
)


class Results:
    """A results file: what all its rows share, the floor, and the rows, each under its key."""

    def __init__(self, path: str | Path, shared: Mapping):
        """Open the file or begin one; raises ValueError when it was measured differently.

        What only rows that ask for attributes share is added to a file that has no such rows yet.
        """
        self.path = Path(path)
        self._shared = shared
        self._value = {"format": FORMAT, **shared, "models": {}, "floor": None, "rows": {}}
        self._read_again()

    def _read_again(self) -> None:
        """Take over what is in the file by now."""
        if not self.path.exists():
            return
        value = read(self.path)
        theirs, ours = (one.get("against", "training") for one in (value, self._shared))
        if theirs != ours:
            raise ValueError(
                f"{self.path} was measured against {theirs} pictures, not {ours} ones; "
                "choose another --out"
            )
        for name, setting in self._shared.items():
            if value.get(name) != setting and not (name in LATER and name not in value):
                how = LATER.get(name, f"with {name} {value.get(name)}, not {setting}")
                raise ValueError(f"{self.path} was measured {how}; choose another --out")
        self._value = {**self._value, **value}

    @property
    def floor(self) -> dict | None:
        """The row of the real pictures, once it is measured."""
        return self._value["floor"]

    def check_model(self, name: str, model: Mapping) -> None:
        """Raise ValueError when the file has rows that the model drew when it was another."""
        about = self._value["models"].get(name)
        if about is None:
            return
        if about.get("weights") != model.get("weights"):
            raise ValueError(
                f"{self.path} has rows of other weights of {name}; choose another --out"
            )
        for part in ("schedule", "prediction"):
            if part in about and about[part] != model.get(part):
                raise ValueError(
                    f"{self.path} has rows of {name} with another {part}; choose another --out"
                )

    def __contains__(self, key: str) -> bool:
        return key in self._value["rows"]

    def has(self, old_key: str, model: str) -> bool:
        """Whether the file is an older one, and has that row of that model."""
        row = self._value["rows"].get(old_key)
        return row is not None and row["model"] == model

    def add_floor(self, row: dict) -> None:
        """Keep the real pictures' row."""
        with self._changing():
            self._value["floor"] = row

    def add(self, key: str, row: dict, model: Mapping) -> None:
        """Keep a row, and what the model behind it is.

        Raises ValueError when another process made a file of it meanwhile that cannot take the row.
        """
        with self._changing():
            self.check_model(row["model"], model)
            self._value["rows"][key] = row
            self._value["models"][row["model"]] = dict(model)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Change what is in the file now: other processes may add rows to it as well."""
        from filelock import FileLock

        file = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:24]
        with FileLock(cache_dir("locks") / f"{file}.lock"):
            self._read_again()
            yield
            write_json(self.path, self._value)


def read(path: str | Path) -> dict:
    """A results file's content; raises ValueError when it is none."""
    try:
        value = json.loads(read_text(Path(path)))
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}")
        for part in ("models", "rows"):
            if not isinstance(value.get(part), dict):
                raise ValueError(f"no {part}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no results of this version ({error})") from None
    return value


def of_weights(results: Mapping, weights: str) -> list[dict]:
    """The rows of the model with these weights (see `weights_hash`); none when it has none."""
    names = [name for name, about in results["models"].items() if about["weights"] == weights]
    return [row for row in results["rows"].values() if row["model"] in names]


def check_plots() -> None:
    """Raise ValueError where plots cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise ValueError("plots are drawn with matplotlib; pip install matplotlib first")


def write_report(path: Path) -> tuple[Path, Path]:
    """Write a results file's page, FILE.md, and plot, FILE.png, beside it; return their paths.

    Raises ValueError for a file that is none of these results, or where plots cannot be drawn.
    """
    check_plots()
    results = read(path)
    page, picture = path.with_suffix(".md"), path.with_suffix(".png")
    try:
        write_text(page, markdown(results, picture.name))
        plot(results, picture)
    except KeyError as missing:
        raise ValueError(f"{path} holds no results of this version (no {missing})") from None
    return page, picture


def markdown(results: Mapping, plot_name: str) -> str:
    """The results as a page: models, how they were measured, plot, table and what it shows."""
    models = "\n".join(
        f"- `{name}`, weights {about['weights']}, trained on "
        f"{images_seen(about['training']):,} images"
        for name, about in results["models"].items()
    )
    return (
        f"# Measured quality\n\n{models}\n\n{conditions(results)}\n\n"
        f"![{plot_title(results)}]({plot_name})\n\n{table(results)}\n"
        f"{_findings(results)}"
    )


def _findings(results: Mapping) -> str:
    """For every model, whether its rows have the shape of DDIM's Table 1."""
    extractor = results["extractors"][0]
    parts = []
    for name in results["models"]:
        rows = [row for row in results["rows"].values() if row["model"] == name]
        findings = table_one(rows, extractor)
        if any(finding.steps for finding in findings):  # else the rows were measured for other ends
            lines = [f"- {finding}" for finding in findings]
            whose = f" ({name})" if len(results["models"]) > 1 else ""
            parts.append("\n".join([f"\n## The shape of DDIM's Table 1{whose}\n", *lines, ""]))
    return "".join(parts)


def conditions(results: Mapping) -> str:
    """How the rows were measured, in sentences."""
    rows = list(results["rows"].values())
    first, *others = results["extractors"]
    scale = scale_of(first)
    also = "".join(
        f" {scale_of(other).column} is the distance on {other} features{scale_of(other).told}."
        for other in others
    )
    equal = _equal_sets(results)
    asked = _asked(results) if any(row["guidance"] for row in rows) else ""
    spacings = ", ".join(sorted({row["spacing"] for row in rows}))
    crisp = CRISP if any("finish" in row for row in rows) else ""
    busy = "" if all("seconds" in row for row in rows) else ", where nothing interrupted it"
    return (
        f"{results['count']:,} pictures per row, seeds from {results['seed']}; {_real(results)} FD "
        f"(squared Fréchet distance{scale.told}), KID, precision and recall on {first} features; "
        "FD depends on the number of pictures, so compare it with the floor and never with other "
        f"extractors.{also}"
        f"{equal} KID is ×{scale.kernel_told}, ± one standard error, near zero at most that. A "
        f"copy is nearer than 5 grey levels (RMSE at 32 px) to a training picture. Spacing "
        f"{spacings}; x0 clipped.{crisp}{asked} Seconds per picture on {results['machine']}{busy}."
    )


def _real(results: Mapping) -> str:
    """Which real pictures the rows were measured with."""
    reference, floor, data = results["reference"], results["count"], results["data"]
    if "against" in results:
        return (
            f"reference {reference:,} pictures of {data} that were never trained on; floor: "
            f"{floor:,} training pictures."
        )
    return (
        f"reference {reference:,} training pictures of {data}; floor: {floor:,} real pictures that "
        "were never trained on."
    )


def _equal_sets(results: Mapping) -> str:
    """Which pictures precision and recall leave out, where one set is larger than the other."""
    count, reference = results["count"], results["reference"]
    if count == reference:
        return ""
    which = "a random" if "precision_recall" in results else "the first"
    larger = "the reference" if reference > count else "those drawn"
    return f" Precision and recall see only {which} {min(count, reference):,} pictures of {larger}."


def _asked(results: Mapping) -> str:
    told = (
        " Above w = 0, every picture asks for all attributes of one unseen picture; the columns "
        "named like attributes say how often it shows them, as a network read them that was "
        "trained on real pictures and, marked palette, as their colours tell; the floor's row "
        "says how often these two are right."
    )
    if any(not row["guidance"] and "fidelity" in row for row in results["rows"].values()):
        told += " At w = 0 nothing is asked, and they tell how often chance shows it."
    chance = ", ".join(
        f"{name.replace('_', ' ')} {share:.2f}" for name, share in results.get("chance", {}).items()
    )
    return told + (f" By chance: {chance}." if chance else "")


def table(results: Mapping) -> str:
    """Rows and floor as a Markdown table; columns that say nothing are left out."""
    columns = _columns(results)
    lines = [list(columns)]
    for row in sorted(results["rows"].values(), key=_place):
        lines.append([column(row) for column in columns.values()])
    if results["floor"]:
        lines.append([column({"floor": True, **results["floor"]}) for column in columns.values()])
    lines.insert(1, ["---"] + ["---:"] * (len(columns) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _place(row: Mapping) -> tuple:
    """Where a row stands, whenever it was measured."""
    return row["model"], sampler_of(row), manner(row), row["guidance"], row["steps"]


def _columns(results: Mapping) -> dict:
    rows = list(results["rows"].values())
    first, *others = results["extractors"]

    def measured(name: str, show: str, extractor: str = first):
        return lambda row: show.format(row["distances"][extractor][name])

    def setting(name: str, show=str):  # noqa: ANN001
        return lambda row: "" if "floor" in row else show(row[name])

    columns, floor = {}, floor_name(results)
    if len({row["model"] for row in rows}) > 1:
        columns["model"] = lambda row: floor if "floor" in row else row["model"]
        columns["sampler"] = lambda row: "" if "floor" in row else sampler_of(row)
    else:
        columns["sampler"] = lambda row: floor if "floor" in row else sampler_of(row)
    columns["S"] = setting("steps")
    if any(row["guidance"] for row in rows):
        columns["w"] = setting("guidance", "{:g}".format)
    if any(not row["rederive"] or row["interval"] != [0.0, 1.0] for row in rows):
        columns["guidance"] = lambda row: "" if "floor" in row else manner(row)
    columns["calls"] = setting("calls")
    columns["s"] = lambda row: _seconds(row, results["count"])
    columns["FD"] = _distance(first)
    columns["KID"] = lambda row: "{:.1f} ± {:.1f}".format(
        *scale_of(first).kernel(row["distances"][first])
    )
    columns["precision"] = measured("precision", "{:.2f}")
    columns["recall"] = measured("recall", "{:.2f}")
    for other in others:
        columns[scale_of(other).column] = _distance(other)
    columns["copies"] = lambda row: f"{row['copies']:.1%}" if "copies" in row else ""
    for witness, note in (("fidelity", ""), ("palette", " (palette)")):
        for name in dict.fromkeys(name for row in rows for name in row.get(witness, {})):
            columns[name.replace("_", " ") + note] = lambda row, name=name, witness=witness: (
                f"{row[witness][name]:.3f}" if name in row.get(witness, {}) else ""
            )
    return columns


def _seconds(row: Mapping, count: int) -> str:
    """Of one picture; the floor has none, nor a row that other work interrupted.

    Nor has a row whose pictures came out of the cache and were drawn with, say, more threads.
    """
    return f"{row['seconds'] / count:.2f}" if "seconds" in row else ""


def _distance(extractor: str) -> Callable[[Mapping], str]:
    """The Fréchet distances of a column."""
    scale = scale_of(extractor)
    return lambda row: f"{scale.frechet(row['distances'][extractor]):.1f}"
