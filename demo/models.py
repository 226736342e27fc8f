"""Whose weights draw: those the page began with, others that ship, or those of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demo import wording_make, wording_train
from demo.backend import Backend
from demo.recorded import MODEL
from demo.trainings import Trainings, about
from demo.verdicts import OrderedReader
from demo.wishes import Labels
from diffusion.model import CONFIG, ModelError, read_config, value_names
from diffusion.reader import AttributeReader, reader_beside

CHECKPOINTS = MODEL.parent
OWN = ""  # the name of the weights that the page began with


@dataclass(frozen=True)
class Offer:
    """A model that faces can be made with."""

    name: str  # in the form
    title: str
    credit: str  # whose pictures it learned from, as HTML; "" where the page does not know
    labels: Labels
    reader: OrderedReader | None  # if it knows those labels


class Models:
    """All models of a page, by the names that forms and addresses hold."""

    def __init__(
        self,
        backend: Backend,
        trainings: Trainings,
        reader: AttributeReader | None = None,
        checkpoints: Path = CHECKPOINTS,
        own: str = str(MODEL),
    ):
        """`own` is the folder, or the Hub name, of what `backend` draws with."""
        self.backend, self.trainings = backend, trainings
        offers = [_offer(OWN, Path(own).name, backend.labels, reader)]
        for folder in sorted(path.parent for path in checkpoints.glob(f"*/{CONFIG}")):
            if folder.resolve() == Path(own).resolve():
                continue
            try:
                config, beside = read_config(folder), reader_beside(folder)
            except ModelError:
                continue  # a folder that somebody else put there
            offers.append(_offer(folder.name, folder.name, config.get("labels", {}), beside))
        self.offers: Mapping[str, Offer] = {offer.name: offer for offer in offers}
        self._checkpoints = checkpoints

    def folder(self, name: object) -> str:
        """Where the weights of that name are; raises ValueError, in a sentence, if nowhere."""
        if name in self.offers and name != OWN:
            return str((self._checkpoints / str(name)).resolve())
        found = self.trainings.find(name)
        if not (found.model_folder / CONFIG).is_file():
            raise ValueError(wording_train.NO_MODEL)
        return str(found.model_folder.resolve())

    def labels(self, name: object) -> Labels:
        """What that model can be asked for; raises ValueError."""
        if name in self.offers:
            return self.offers[name].labels
        return read_config(self.folder(name)).get("labels", {})

    def told(self, name: object) -> str:
        """Whose model that is, in a sentence."""
        if name in self.offers:
            return wording_make.drawn_by(self.offers[name].title)
        run = next((run for run in self.trainings.runs() if run.folder.name == name), None)
        if run is None:
            return wording_train.GONE
        _, config = run.config()
        return wording_train.drawn_by(about(run).get("title") or run.folder.name, config.size)


def _offer(name: str, folder: str, labels: Labels, reader: AttributeReader | None) -> Offer:
    known = value_names(labels)
    fits = reader is not None and known.items() <= dict(reader.labels).items()
    title = wording_make.MODELS.get(folder, folder)
    credit = wording_make.CREDITS.get(folder, "")
    return Offer(name, title, credit, known, OrderedReader(reader, known) if fits else None)
