"""Asked against got: a small network that reads the attributes of a picture.

It is trained on real pictures only, never on drawn ones, and its accuracy on held-out pictures
is stored with it: no fidelity can be measured better than that. Colours have a second, simpler
witness in `palette`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from diffusion.data import Images
from diffusion.denoiser import ANY
from diffusion.device import apart
from diffusion.files import replacing
from diffusion.model import CONFIG, UNUSABLE, ModelError, read_config, value_names
from diffusion.noise import TRAINING, generator
from diffusion.palette import Palette, colours_of, seen
from diffusion.pictures import from_uint8

FILE = "reader.safetensors"  # beside a model's weights
FORMAT = "cartoon-reader/1"
WIDTHS = (32, 48, 64, 96)  # halving the side between them, after pixel_unshuffle(2)
MAX_NOISE = 8 / 255  # of a training picture: drawn pictures are not as clean as real ones
BATCH, LR, EPOCHS = 64, 3e-3, 12


class ReaderNetwork(nn.Module):
    """network(x) -> one row of logits, all attributes side by side; x is (B, 3, size, size)."""

    def __init__(self, outputs: int):
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        width_in = 3 * 4
        for i, width in enumerate(WIDTHS):
            stride = 2 if i else 1
            layers += [
                nn.Conv2d(width_in, width, 3, stride, padding=1),
                nn.GroupNorm(width // 16, width),
                nn.SiLU(),
            ]
            width_in = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * width_in, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, outputs)."""
        h = self.body(x)
        return self.head(torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1))


@dataclass(frozen=True)
class AttributeReader:
    """A trained network, the names of the values that it reads, and how often it is right."""

    network: ReaderNetwork
    labels: Mapping[str, tuple[str, ...]]
    accuracy: Mapping[str, float] = field(default_factory=dict)  # on held-out real pictures
    held_out: int = 0  # how many those were
    palette: Palette = field(default_factory=dict)  # of the attributes that are colours
    size: int | None = None  # pixels per side that it learned from; None: not known

    @torch.no_grad()
    def read(self, pixels: np.ndarray) -> np.ndarray:
        """The index of each attribute's most likely value: int64 (N, attributes)."""
        rows = [
            torch.stack([logits.argmax(dim=1) for logits in _split(self, batch)], dim=1)
            for batch in torch.from_numpy(np.ascontiguousarray(pixels)).split(256)
        ]
        return torch.cat(rows).numpy()

    def check_size(self, size: int) -> None:
        """Raise ModelError when it learned to read pictures of another size, in pixels."""
        if self.size not in (None, size):
            raise ModelError(
                f"the reader reads pictures of {self.size} px, and these have {size} px; train one "
                f"for them with `python -m diffusion reader --size {size}`"
            )

    def save(self, folder: str | Path) -> Path:
        """Write reader.safetensors, float16, with everything else in its header."""
        about = {
            "format": FORMAT,
            "labels": json.dumps({name: list(values) for name, values in self.labels.items()}),
            "accuracy": json.dumps(dict(self.accuracy)),
            "held_out": str(self.held_out),
            "palette": json.dumps({name: list(row) for name, row in self.palette.items()}),
        }
        if self.size is not None:
            about["size"] = str(self.size)
        path = Path(folder) / FILE
        state = {name: value.half() for name, value in self.network.state_dict().items()}
        with replacing(path) as temporary:
            temporary.write_bytes(to_bytes(state, metadata=about))
        return path

    @classmethod
    def load(cls, folder: str | Path) -> AttributeReader:
        """The reader in a model's folder; raises ModelError when there is no usable one."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise ModelError(f"no {FILE} in {folder}; train one with `python -m diffusion reader`")
        return apart(cls._load, path)

    @classmethod
    def _load(cls, path: Path) -> AttributeReader:
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}")
            labels = value_names(json.loads(about["labels"]))
            network = ReaderNetwork(sum(map(len, labels.values())))
            network.load_state_dict(state)
            accuracy = {name: float(share) for name, share in json.loads(about["accuracy"]).items()}
            held_out = int(about["held_out"])
            palette = _palette(json.loads(about["palette"]), labels)
            size = int(about["size"]) if "size" in about else None
        except UNUSABLE as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{path} is no reader of this version ({reason})") from None
        network.eval().requires_grad_(False)
        return cls(network, labels, accuracy, held_out, palette, size)


def reader_beside(model: str | Path) -> AttributeReader | None:
    """The reader in a model's folder; None where there is none, as with a name on the Hub.

    Raises ModelError for one that cannot be used, or not with the pictures of this model.
    """
    if not (Path(model) / FILE).is_file():
        return None
    reader, size = AttributeReader.load(model), drawn_size(model)
    if size is not None:
        reader.check_size(size)
    return reader


def drawn_size(folder: str | Path) -> int | None:
    """Pixels per side of what the model in a folder draws; None where there is no model.

    Raises ModelError for a model that cannot be used.
    """
    if not (Path(folder) / CONFIG).is_file():
        return None
    return read_config(folder).get("image", {}).get("size")


def train_reader(
    images: Images, held_out: int, seed: int = 0, epochs: int = EPOCHS
) -> Iterator[AttributeReader]:
    """Train on all but the held-out pictures, yielding the reader so far after every epoch.

    `images` must have labels; a picture whose value is not known does not count for it. Raises
    ValueError when no picture is held out, and DataError when too many are.
    """
    if held_out < 1:
        raise ValueError(
            f"{held_out} pictures held out leave none to tell how often the reader is right; "
            "choose 1 or more"
        )
    names = value_names(images.labels.names)
    chosen, unseen = images.split(held_out)
    batch = min(BATCH, len(chosen))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ReaderNetwork(sum(map(len, names.values())))
    steps = epochs * (len(chosen) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for epoch in range(epochs):
        rng = generator(seed, TRAINING, level=epoch)
        network.train()
        order = rng.permutation(chosen)
        for rows in order[: len(order) // batch * batch].reshape(-1, batch):
            x = _blemished(from_uint8(torch.from_numpy(images.pixels[np.sort(rows)])), rng)
            labels = torch.from_numpy(images.labels.values[np.sort(rows)])
            if (labels == ANY).all():
                continue
            optimizer.zero_grad()
            _loss(network(x), labels, names).backward()
            optimizer.step()
            schedule.step()
        network.eval()
        reader = AttributeReader(network, names)
        right = fidelity(reader, images.pixels[unseen], images.labels.values[unseen])
        palette, size = dict(images.labels.palette), images.pixels.shape[1]
        yield AttributeReader(network, names, right, len(unseen), palette, size)


def fidelity(reader: AttributeReader, pixels: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """For each attribute, the share of pictures that show what was asked, int64 (N, attributes).

    Pictures of which nothing was asked (-1) do not count; an attribute never asked is left out.
    """
    got = reader.read(pixels)
    return {
        name: float((got[there, i] == asked[there, i]).mean())
        for i, name in enumerate(reader.labels)
        if (there := asked[:, i] != ANY).any()
    }


def palette_fidelity(
    reader: AttributeReader, pixels: np.ndarray, asked: np.ndarray
) -> dict[str, float]:
    """The same by the palette, for the attributes that are colours."""
    shares = {}
    for i, name in enumerate(reader.labels):
        there = asked[:, i] != ANY
        if name in reader.palette and there.any():
            got = seen(pixels[there], reader.palette[name])
            shares[name] = float((got == asked[there, i]).mean())
    return shares


def chance(asked: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """What one would get without asking: two draws from what was asked agree so often."""
    shares = {}
    for column, name in zip(asked.T, names, strict=True):
        counts = np.bincount(column[column != ANY])
        shares[name] = float(((counts / max(counts.sum(), 1)) ** 2).sum())
    return shares


def _palette(rows: Mapping[str, Sequence], labels: Mapping[str, Sequence[str]]) -> Palette:
    """The colours in a reader's file; raises ValueError unless each value has one, or none."""
    palette = {name: colours_of(row) for name, row in dict(rows).items()}
    for name, colours in palette.items():
        if colours is None or len(colours) != len(labels[name]):
            raise ValueError(f"no palette of {name}")
    return palette


def _blemished(x: Tensor, rng: np.random.Generator) -> Tensor:
    """With noise of a random strength in each picture, and shifted by at most two pixels."""
    strength = torch.from_numpy(rng.random((len(x), 1, 1, 1), dtype=np.float32)) * 2 * MAX_NOISE
    noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    across, down = rng.integers(-2, 3, size=2)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    size = x.shape[-1]
    moved = padded[..., 2 + down : 2 + down + size, 2 + across : 2 + across + size]
    return moved + strength * noise


def _loss(logits: Tensor, labels: Tensor, names: Mapping[str, Sequence[str]]) -> Tensor:
    parts = logits.split([len(values) for values in names.values()], dim=1)
    return sum(
        F.cross_entropy(part, column, ignore_index=ANY)
        for part, column in zip(parts, labels.T, strict=True)
        if (column != ANY).any()
    )


def _split(reader: AttributeReader, pixels: Tensor) -> Sequence[Tensor]:
    counts = [len(values) for values in reader.labels.values()]
    return reader.network(from_uint8(pixels)).split(counts, dim=1)
