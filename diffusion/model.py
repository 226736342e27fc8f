"""DiffusionModel: a network together with everything needed to sample it, as a folder.

The folder holds `config.json` and `model.safetensors`, in the Hub's conventions. Weights are
read with safetensors only; pickles are never loaded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from diffusion.denoiser import (
    ANY,
    EVERYWHERE,
    Denoiser,
    Network,
    check_prediction,
    output_channels,
)
from diffusion.device import apart
from diffusion.files import read_text, replacing, write_json
from diffusion.schedule import Schedule
from diffusion.unet import UNet, UNetConfig

FORMAT = "cartoon-diffusion/1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
WITH_CARD = (CARD, "*.png", "reader.safetensors", "results.json")  # what `publish` writes
PARTS = ("network", "schedule", "image", "labels", "training")  # of the config, each an object
UNUSABLE = (
    AttributeError,
    KeyError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)  # what a folder that holds something else makes of loading it
FP16_ABOVE = 16 * 2**20  # bytes of float32; larger models are stored as float16


class ModelError(ValueError):
    """A model folder that cannot be used; the message says what to do."""


def value_names(labels: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The names of each attribute's values, comparable however they were stored.

    JSON has lists only, and a list never equals a tuple.
    """
    return {attribute: tuple(names) for attribute, names in labels.items()}


@dataclass(frozen=True)
class DiffusionModel:
    """A trained network, its schedule, what it predicts, and the meaning of its labels.

    Raises ValueError (ModelError) when these do not fit each other.
    """

    network: UNet
    schedule: Schedule
    prediction: str = "v"
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)  # how it was trained; for people
    version: str = ""  # `weights_hash` of the folder it was loaded from
    folder: Path | None = field(default=None, repr=False, compare=False)  # that folder
    compute: Network | None = field(default=None, repr=False, compare=False)  # instead of network
    answers: str | None = None  # what `compute` predicts; None: as the network
    backend: str = "float32"  # what computes the network; see diffusion.backends

    def __post_init__(self) -> None:
        check_prediction(self.prediction)
        object.__setattr__(self, "labels", value_names(self.labels))
        counts = tuple(len(values) for values in self.labels.values())
        if counts != self.network.config.labels:
            raise ModelError(
                f"labels have {counts} values, the network {self.network.config.labels}"
            )
        answers = self.network.config.out_channels or self.shape[0]
        wanted = output_channels(self.prediction, self.shape[0])
        if answers != wanted:
            raise ModelError(
                f"the network answers with {answers} channels, but to predict {self.prediction} it "
                f"takes {wanted}; set its out_channels to {wanted}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one picture."""
        config = self.network.config
        return (config.channels, config.size, config.size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> DiffusionModel:
        """Move the network to a device, in place, and return the model in plain float32."""
        self.network.to(device)
        if self.compute is None:
            return self
        return replace(self, compute=None, answers=None, backend="float32")

    def denoiser(
        self,
        labels: Tensor | ArrayLike | None = None,
        guidance: float | Tensor = 1.0,
        clip: bool | Tensor = True,
        interval: tuple[float, float] = EVERYWHERE,
        rederive: bool = True,
    ) -> Denoiser:
        """denoise(x, t) -> (x0, eps); labels are int64 (B, attributes), -1 = any.

        `guidance` and `clip` hold for all images, or are (B,). Raises ValueError for labels that
        the model does not know, and for a guidance that is negative or no number; give labels on
        the CPU, since what is on a GPU is taken as it is.
        """
        if labels is not None:
            labels = torch.as_tensor(labels)
            self._check_labels(labels)
            labels = labels.to(self.device)  # once, and not at every step
        _check_guidance(guidance)
        return Denoiser(
            self.compute or self.network,
            self.schedule,
            self.answers or self.prediction,
            clip,
            labels,
            guidance,
            interval,
            rederive,
        )

    def _check_labels(self, labels: Tensor) -> None:
        whole = not labels.is_floating_point() or not labels.numel()
        if labels.ndim != 2 or labels.shape[1] != len(self.labels) or not whole:
            raise ValueError(
                f"labels {tuple(labels.shape)} of {labels.dtype}; give whole numbers (images, "
                f"{len(self.labels)}), for {', '.join(self.labels) or 'no attribute'}; -1 is any"
            )
        if labels.device.type != "cpu":
            return  # asking a GPU would wait for all that it computes
        for (attribute, values), column in zip(self.labels.items(), labels.numpy().T, strict=True):
            if ((column < ANY) | (column >= len(values))).any():
                raise ValueError(
                    f"labels of {attribute} from {column.min()} to {column.max()}; "
                    f"choose 0 to {len(values) - 1}, or -1 for any"
                )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors into `folder` and return it."""
        folder = Path(folder)
        config = {
            "format": FORMAT,
            "network": self.network.config.to_json(),
            "schedule": self.schedule.to_json(),
            "prediction": self.prediction,
            "image": {"size": self.shape[1], "channels": self.shape[0]},
            "labels": dict(self.labels),
            "training": dict(self.training),
        }
        with replacing(folder / WEIGHTS) as temporary:
            temporary.write_bytes(to_bytes(_stored(self.network), metadata={"format": "pt"}))
        write_json(folder / CONFIG, config)
        return folder

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: torch.device | str = "cpu"
    ) -> DiffusionModel:
        """Load a model folder, or a repository of the Hugging Face Hub ("user/name").

        Raises ModelError, with what to do next, when there is no usable model.
        """
        folder = Path(name)
        if (folder / "model" / CONFIG).is_file() and not (folder / WEIGHTS).exists():
            raise ModelError(f"{folder} is a run; its model is in {folder / 'model'}")
        if not (folder / CONFIG).is_file():
            folder = _download(str(name))
        return apart(cls._load, folder, read_config(folder), device)

    @classmethod
    def _load(cls, folder: Path, config: Mapping, device: torch.device | str) -> DiffusionModel:
        try:
            network = UNet(UNetConfig(**config["network"]))
            schedule = Schedule(**config["schedule"])
            content = (folder / WEIGHTS).read_bytes()  # once: a training may replace the file
            weights = from_bytes(content)
            network.load_state_dict({key: value.float() for key, value in weights.items()})
            labels, training = config.get("labels", {}), config.get("training", {})
            version = _hash(content)
            model = cls(
                ready(network), schedule, config["prediction"], labels, training, version, folder
            )
        except FileNotFoundError:
            raise ModelError(f"{folder} has no {WEIGHTS}; copy it beside {CONFIG}") from None
        except UNUSABLE as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{folder} is not a model of this version: {reason}") from error
        return model.to(device)

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Upload the model to the Hugging Face Hub and return its address.

        What `publish` left beside the weights that it was loaded from goes along: the card, what it
        shows and tells of. Raises ModelError when the Hub cannot be reached or refuses.
        """
        import tempfile

        api = _hub().HfApi()
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            for path in self._published():
                shutil.copyfile(path, Path(folder, path.name))
            try:
                api.create_repo(repo_id, exist_ok=True, private=private)
                return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
            except _hub_errors() as error:
                raise ModelError(
                    f"{repo_id!r} cannot be uploaded ({_first_line(error)}); log in with "
                    "`hf auth login`, or try again later"
                ) from error

    def _published(self) -> list[Path]:
        """The card beside the weights that it was loaded from, and what goes with a card."""
        if not (self.folder and (self.folder / CARD).is_file()):
            return []
        return [path for name in WITH_CARD for path in sorted(self.folder.glob(name))]


def ready(network: nn.Module) -> nn.Module:
    """The network as it is used for sampling: evaluation mode, channels last, no gradients."""
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def read_config(folder: str | Path) -> dict:
    """A model's config.json, in which every one of PARTS is a mapping, or left out.

    Raises ModelError for one that cannot be used.
    """
    path = Path(folder) / CONFIG
    try:
        config = json.loads(read_text(path))
    except FileNotFoundError:
        raise ModelError(
            f"no model in {folder}; train one with `python -m diffusion train`"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); copy the model folder again") from None
    found = config.get("format") if isinstance(config, dict) else None
    kind, _, version = str(found).partition("/")
    if kind != FORMAT.partition("/")[0] or not version.isdecimal():
        raise ModelError(
            f"{folder} holds no model of Cartoon Diffusion; "
            "give one made with `python -m diffusion train`"
        )
    if found != FORMAT:
        raise ModelError(
            f"{path} has format {found!r}, this version reads {FORMAT!r}; update the package"
        )
    odd = [part for part in PARTS if not isinstance(config.get(part, {}), dict)]
    if odd:
        raise ModelError(f"{path} has no object as its {odd[0]}; copy the model folder again")
    return config


def weights_hash(folder: str | Path) -> str:
    """SHA-256 of the weight file, shortened to 12 digits: which model made a picture."""
    return _hash((Path(folder) / WEIGHTS).read_bytes())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _check_guidance(guidance: float | Tensor) -> None:
    if isinstance(guidance, Tensor) and guidance.device.type != "cpu":
        return
    values = np.asarray(guidance)
    if not ((values >= 0) & (values < np.inf)).all():
        raise ValueError(f"guidance {guidance}; choose a number from 0 up")


def _stored(network: nn.Module) -> dict[str, Tensor]:
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if sum(value.numel() * 4 for value in state.values()) > FP16_ABOVE:
        state = {key: value.half() for key, value in state.items()}
    return state


def _download(name: str) -> Path:
    # Our own folders look like Hub names; asking the Hub for them would only delay the answer.
    local = name.startswith((".", "/", "checkpoints/", "runs/")) or Path(name).exists()
    if local or name.count("/") != 1:
        raise ModelError(
            f"no model in {name}; give a folder with {CONFIG}, or a Hub name user/model"
        )
    hub = _hub()
    try:
        return Path(hub.snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except _hub_errors() as error:
        raise ModelError(f"no model {name!r} here or on the Hub ({_first_line(error)})") from error


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(
            "the Hub needs a package more; run `pip install huggingface_hub`, or give a folder "
            f"with {CONFIG}"
        ) from None
    return huggingface_hub


def _hub_errors() -> tuple[type[Exception], ...]:
    """What asking the Hub may raise: those of its package, and those of the way to it."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        from httpx import HTTPError  # no OSError, unlike those of `requests`
    except ImportError:  # an older huggingface_hub, which asks with `requests`
        return (HfHubHTTPError, HFValidationError, OSError)
    return (HfHubHTTPError, HFValidationError, OSError, HTTPError)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
