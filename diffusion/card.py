"""The model card: what a model draws, how good it is, and how it was made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffusion.cartoons import COUNT
from diffusion.data import CARTOONSET
from diffusion.model import DiffusionModel
from diffusion.reader import FILE as READER_FILE
from diffusion.reader import AttributeReader
from diffusion.results import conditions, table
from diffusion.run_card import MODEL, PROJECT, begun_with, front_matter
from diffusion.sources import Source, attribution_is_enough, licence_id
from diffusion.toons import BUILT_IN
from diffusion.train_config import FINE_TUNING, TrainConfig, held_out_of
from diffusion.unet import Attention, gflop, parameter_count

ASKED_SEEDS, ASKED_W = range(8), 2.0  # of the pictures to order
PREDICTS = {
    "v": "v",
    "eps": "the noise",
    "x0": "the clean picture",
    "dual": "v, the clean picture and a gate between them for every pixel",
}


@dataclass(frozen=True)
class Card:
    """What a card is written from.

    `data`, `config` and `records` are what a run learned from, its settings and its metrics;
    `results` are those of results.py, `reader` a folder. `name` is the model's in commands.
    """

    data: str
    config: TrainConfig
    records: Sequence[Mapping]
    model: DiffusionModel
    title: str
    source: Source
    hardware: str
    history: str
    results: dict | None
    reader: Path | None
    name: str = MODEL

    def text(self) -> str:
        """The card as Markdown with the Hub's front matter."""
        parts = [
            self._front(),
            self._samples(),
            self._wishes(),
            self._quality(),
            self._data(),
            self._training(),
            self._limits(),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _front(self) -> str:
        licence = licence_id(self._sources)
        return f"""{front_matter(licence)}

# {self.title}

A diffusion model of {self._size}×{self._size} pictures, \
{parameter_count(self.model.network) / 1e6:.1f} M weights and
{gflop(self.model.network):.2f} GFLOP per picture and step."""

    def _samples(self) -> str:
        where = f"; {MODEL} stands for this model's folder" if self.name == MODEL else ""
        return f"""![Seeds 0 to 63, all of them, DDIM with 50 steps](samples.png)

Seeds 0 to 63, all of them, by DDIM with 50 steps and η 0:
`{self._sample("--steps 50 --count 64 --out samples.png")}`

Commands run in the folder of {PROJECT}{where}."""

    def _wishes(self) -> str:
        if not self.model.labels:
            return ""
        values = "\n".join(
            f"| {name.replace('_', ' ')} | {', '.join(names)} |"
            for name, names in self.model.labels.items()
        )
        name, names = next(iter(self.model.labels.items()))
        wish = shlex.quote(f"{name}={names[0]}")
        read = ""
        if self.reader is not None:
            reader = AttributeReader.load(self.reader)
            right = ", ".join(
                f"{attribute.replace('_', ' ')} {share:.1%}"
                for attribute, share in reader.accuracy.items()
            )
            read = f"""

`{READER_FILE}` tells which attributes a picture shows. It was trained on the real training
pictures alone; of {reader.held_out:,} held-out real ones it reads right: {right}."""
        return f"""## To order

Any of these can be asked for, or left open; {ASKED_W:g} is a good guidance:
`{self._sample(f"--label {wish} --guidance {ASKED_W:g} --out OUT")}`

| attribute | values |
|---|---|
{values}

![For every value the same eight seeds](asked.png)

A row for every value of every attribute, in the order of the table, each time seeds \
0 to {len(ASKED_SEEDS) - 1},
by DDIM with 50 steps and guidance {ASKED_W:g}; the other attributes are left open.{read}"""

    def _quality(self) -> str:
        if self.results is None:
            return ""
        return f"## Quality\n\n{conditions(self.results)}\n\n{table(self.results)}"

    def _data(self) -> str:
        config, source = self.config, self.source
        held_out = (
            f"{config.held_out:,} of them, the last by their names' SHA-256, were never trained on."
            if config.held_out
            else "None of them were held out."
        )
        flip = " Half of the pictures were mirrored." if config.flip else ""
        before = [one for one in config.learned_before if one != source]
        first = f"\n\n{begun_with(before)}" if before else ""
        named = "; ".join(f"{one.name}, {one.author}, {one.licence}" for one in [source, *before])
        may = (
            "The weights may be used with the same attribution:"
            if attribution_is_enough(self._sources)
            else "Ask the owners named above what the weights may be used for, and name them:"
        )
        return f"""## Data

{source.credit}. {source.note}
{held_out}{flip}{first}

{may} "trained on {named}"."""

    def _training(self) -> str:
        config, last = self.config, self.records[-1]
        images, hours = last["images"], last["seconds"] / 3600
        built_in = self.data if self.data in BUILT_IN else ""
        widths = ", ".join(map(str, config.widths))
        attends = any(isinstance(part, Attention) for part in self.model.network.modules())
        attention = ", attention at 8×8" if attends else ""
        told = f"\n{self.history}\n" if self.history else ""
        before = f", after {config.seen_before:,} in earlier runs" if config.seen_before else ""
        return f"""## Training

`{command(config, built_in)}`
{told}
| | |
|---|---|
| images seen | {images:,}{before} |
| hardware | {self.hardware}, {hours:.1f} hours |
| network | U-Net on 2×2 folded pixels, widths {widths}{attention} |
| predicts | {PREDICTS[config.prediction]}, {config.schedule} schedule, T = {config.T} |
| loss weight | {_weight(config)} |
| optimizer | AdamW, batch {config.batch}, learning rate {config.lr:g}, \
average of weights {config.ema:g} |
| precision | {config.precision} |

![Loss against images seen](loss.png)

The same 16 seeds by DDIM with 20 steps, from the first step to the last; each sheet after the
second has seen twice as many images as the one before:

![Sixteen seeds over the training](progress.png)"""

    def _limits(self) -> str:
        wishes = (
            "" if self.model.labels else " It takes no wishes: every picture is a draw at random."
        )
        judged = (
            "No distance was measured."
            if self.results is None
            else "Distances depend on the number of pictures\nand on the features: compare them "
            "only with the floor in the same table."
        )
        return f"""## Limits

{self._subject}{wishes} Small flaws in fine parts remain. {judged}"""

    @property
    def _subject(self) -> str:
        if self.data in BUILT_IN or self.source.name.startswith(CARTOONSET):
            return (
                "It draws what its pictures hold, as their authors drew them, and nothing beyond: "
                "frontal\nheads."
            )
        return "It draws what its pictures hold and nothing beyond."

    def _sample(self, options: str) -> str:
        """The command that draws with the model."""
        return f"python -m diffusion sample --model {self.name} {options}"

    @property
    def _sources(self) -> list[Source]:
        return [*self.config.learned_before, self.source]

    @property
    def _size(self) -> int:
        return self.model.shape[1]


def _weight(config: TrainConfig) -> str:
    """How a run weighs its levels, in words."""
    bounds = []
    if config.snr_floor is not None:
        bounds.append(f"at least {config.snr_floor:g} (truncated SNR)")
    if config.min_snr is not None:
        bounds.append(f"at most {config.min_snr:g} (min-SNR)")
    return f"SNR, {' and '.join(bounds)}, of the clean picture" if bounds else "1, every level"


def command(config: TrainConfig, built_in: str = "") -> str:
    """The command line that trains so, on built-in cartoons or the reader's own archive."""
    words = [f"python -m diffusion train --data {built_in or 'ARCHIVE'}"]
    if config.labels:
        file = "" if built_in else "--labels LABELS.csv "
        words.append(f"{file}--attributes {','.join(config.labels)}")
    words.append(f"--images {config.images} --out runs/NAME")
    usual = TrainConfig(images=1)
    if config.start:
        words.append("--from MODEL")
        usual = replace(usual, **FINE_TUNING)
    weighing = ("min_snr", "snr_floor")
    for name in ("size", "prediction", "schedule", *weighing, "batch", "lr", "ema", "seed"):
        value = getattr(config, name)
        if value != getattr(usual, name):
            shown = f"{value:g}" if isinstance(value, float) else value
            words.append(f"--{name.replace('_', '-')} {shown}")
    if config.widths != usual.widths:
        words.append(f"--widths {','.join(map(str, config.widths))}")
    if config.flip:
        words.append("--flip")
    words += [f"--more-ema {decay:g}" for decay in config.more_emas]
    # What else the command would choose depends on the reader's archive and machine.
    if not built_in or config.held_out != held_out_of(COUNT):
        words.append(f"--held-out {config.held_out}")
    words.append(f"--precision {config.precision}")
    return " ".join(words)
