"""What the commands `evaluate` and `guidance` do with the settings that they measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from diffusion.backends import BACKENDS
from diffusion.cli.problem import check_writable
from diffusion.compiled import use_threads
from diffusion.data import load_images
from diffusion.device import pick_device
from diffusion.evaluation import (
    AGAINST,
    Faces,
    Setting,
    Subject,
    chance_of,
    check_against,
    evaluate_row,
    floor_read,
    floor_row,
    release,
)
from diffusion.features import extractors
from diffusion.labels import load_labels
from diffusion.noise import check_seed
from diffusion.reader import AttributeReader, reader_beside
from diffusion.recipe import check_batch, check_guidance
from diffusion.results import Results, check_plots, write_report
from diffusion.toons import BUILT_IN
from diffusion.train_config import never_seen

HELD_OUT = 1000  # where a model does not say what it never saw


@dataclass(frozen=True)
class Measurement:
    """Which models are measured, against which pictures, and where the rows go."""

    model: Annotated[list[str], typer.Option(help="A model's folder or Hub name; repeatable.")]
    data: Annotated[str, typer.Option(help="The images it was trained on: folder, .zip or .tgz.")]
    out: Annotated[Path, typer.Option(help="FILE.json; FILE.md and FILE.png come beside it.")]
    labels: Annotated[Path | None, typer.Option(help="The CSV of the images' attributes.")] = None
    count: Annotated[int, typer.Option(help="Pictures per row.")] = 1000
    seed: Annotated[int, typer.Option(help="Of the first picture.")] = 0
    reader: Annotated[
        Path | None, typer.Option(help="Folder with reader.safetensors; the first model's.")
    ] = None
    features: Annotated[
        str | None, typer.Option(help="Feature extractors, as a,b; all that are here.")
    ] = None
    against: Annotated[
        str, typer.Option(help="Measure to training pictures, or to all unseen: training, unseen.")
    ] = AGAINST[0]
    batch: Annotated[int | None, typer.Option(help="Pictures computed together.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto"
    backend: Annotated[str, typer.Option(help=f"{', '.join(BACKENDS)}.")] = "float32"
    threads: Annotated[int | None, typer.Option(help="CPU threads; the fastest number.")] = None

    def run(self, settings: Sequence[Setting]) -> None:
        """Measure the rows that the file lacks, and write its table and plot."""
        self._check(settings)
        if self.threads is not None:
            use_threads(self.threads)
        subjects = self._subjects()
        for subject in subjects:
            for setting in settings:
                setting.recipe.plan(subject.model.schedule)  # refuses before anything is drawn
        reader = self._reader(settings)
        faces = self._faces(subjects, reader, settings)
        results = Results(self.out, self._shared(subjects, faces, reader))
        for subject in subjects:
            results.check_model(subject.name, subject.about())
        self._add_rows(results, subjects, settings, faces, reader)
        table, plot = write_report(self.out)
        typer.echo(table.read_text(encoding="utf-8"))
        typer.echo(f"Wrote {self.out}, {table} and {plot}")

    def _check(self, settings: Sequence[Setting]) -> None:
        """Raise ValueError for what can be refused before anything is loaded."""
        if self.out.suffix != ".json":
            raise ValueError(f"{self.out} is no results file; end --out in .json")
        check_seed(self.seed)
        check_seed(self.seed + max(self.count, 1) - 1)
        check_batch(self.batch)
        check_against(self.against)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"{self.threads} threads compute nothing; choose --threads 1 or more")
        for setting in settings:
            check_guidance(setting.guidance)
        check_plots()
        check_writable(self.out.parent)

    def _reader(self, settings: Sequence[Setting]) -> AttributeReader | None:
        """What reads attributes; None where no row tells of any, and so none has to agree."""
        reader = None if self.reader is None else AttributeReader.load(self.reader)
        if not _guided(settings) and self.labels is None:
            return None
        return reader_beside(self.model[0]) if reader is None else reader

    def _subjects(self) -> list[Subject]:
        device = pick_device(self.device)
        return [Subject.load(name, device, self.backend) for name in self.model]

    def _faces(
        self,
        subjects: Sequence[Subject],
        reader: AttributeReader | None,
        settings: Sequence[Setting],
    ) -> Faces:
        models = [subject.model for subject in subjects]
        size = _the_one({model.shape[1] for model in models})
        if reader is not None:
            reader.check_size(size)
        attributes = {tuple(model.labels) for model in models}
        guided = _guided(settings)
        if guided:
            if len(attributes) > 1 or not any(attributes):
                raise ValueError(
                    "guided pictures need models with the same labels; use --guidance 0"
                )
            if self.labels is None and self.data not in BUILT_IN:
                raise ValueError("guided pictures ask for real pictures' attributes; add --labels")
        images = load_images(self.data, size, complete=guided)
        if self.labels is not None:
            wanted = list(dict.fromkeys([*max(attributes), *(reader.labels if reader else ())]))
            labels = load_labels(self.labels, images.names, wanted or None)
            images = replace(images, labels=labels)
        chosen = self.features.split(",") if self.features else list(extractors())
        kept = _the_one({never_seen(model.training, images, HELD_OUT) for model in models})
        faces = Faces(images, kept, self.count, tuple(chosen), self.against)
        if reader is not None and images.labels is not None:
            _check_reader(reader, faces)
        return faces

    def _shared(
        self, subjects: Sequence[Subject], faces: Faces, reader: AttributeReader | None
    ) -> dict:
        """What all rows of a file have in common."""
        device, backend = subjects[0].model.device.type, subjects[0].model.backend
        shared = {
            "data": Path(self.data).name,
            "data_key": faces.images.key,
            "count": faces.count,
            "seed": self.seed,
            "reference": len(faces.reference),
            "held_out": faces.held_out,
            "extractors": list(faces.names),
            "machine": f"{device}, {backend}, torch {release(torch.__version__)}",
        }
        if shared["count"] != shared["reference"]:
            # Files that do not say so were measured against the first ones: rows must not mix.
            shared["precision_recall"] = "against a random part of the reference"
        if faces.against != AGAINST[0]:  # older files do not say it
            shared["against"] = faces.against
        if reader is not None:
            shared["reader"] = {"accuracy": dict(reader.accuracy), "held_out": reader.held_out}
            shared["chance"] = chance_of(faces, reader)
        return shared

    def _add_floor(self, results: Results, faces: Faces, reader: AttributeReader | None) -> None:
        """Measure the real pictures; read their attributes also where that was left out before."""
        if results.floor is None:
            results.add_floor(floor_row(faces, reader))
        elif reader is not None and "fidelity" not in results.floor:
            results.add_floor(results.floor | floor_read(faces, reader))

    def _add_rows(
        self,
        results: Results,
        subjects: Sequence[Subject],
        settings: Sequence[Setting],
        faces: Faces,
        reader: AttributeReader | None,
    ) -> None:
        from tqdm import tqdm

        missing = [
            (subject, setting, key)
            for subject in subjects
            for setting in settings
            if (key := subject.row_key(setting, faces, self.seed)) not in results
            and not results.has(subject.old_row_key(setting, faces, self.seed), subject.name)
        ]
        calls = sum(setting.calls(subject.model.schedule) for subject, setting, _ in missing)
        with tqdm(
            total=calls * self.count, desc="Measuring", unit=" calls", unit_scale=True
        ) as bar:
            self._add_floor(results, faces, reader)
            for subject, setting, key in missing:
                sampler, w = setting.recipe.sampler, setting.guidance
                bar.set_postfix_str(f"{subject.name}, {sampler}, w {w:g}")
                row = evaluate_row(
                    subject, setting, faces, self.seed, reader, self.batch, bar.update
                )
                results.add(key, row, subject.about())


def _the_one(found: set[int]) -> int:
    """What all models agree on, their size or how many of the pictures they never saw."""
    if len(found) > 1:
        raise ValueError(
            "these models differ in size or in what they never saw; measure them apart"
        )
    return found.pop()


def _guided(settings: Sequence[Setting]) -> bool:
    return any(setting.guidance for setting in settings)


def _check_reader(reader: AttributeReader, faces: Faces) -> None:
    """Raise ValueError when the reader may have learned from pictures of the floor."""
    if reader.held_out < faces.held_out:
        raise ValueError(
            f"the reader kept {reader.held_out:,} pictures back and the model {faces.held_out:,}: "
            "it would read pictures that it learned from; train the reader again with "
            f"--held-out {faces.held_out}"
        )
