"""Training a diffusion model from nothing, step by step and exactly resumable.

Step k's pictures, levels, noise, flips and label dropout are a function of (seed, k), so a
training state is only the weights, their average, the optimizer and k.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffusion.denoiser import ANY, at_level, prediction_error, time_of
from diffusion.flat import NarrowCopy, clip_norm_, flatten, parts, take_gradients
from diffusion.model import DiffusionModel, ready
from diffusion.noise import TRAINING, generator
from diffusion.pictures import from_uint8
from diffusion.schedule import Schedule
from diffusion.train_config import PRECISIONS, TrainConfig, learning_rate, make_schedule
from diffusion.unet import UNet

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's running means, of the gradient and of its square


@dataclass(frozen=True)
class Batch:
    """What one step learns from; x0 and eps are (B, 3, size, size), t is int64 (B,).

    labels are int64 (B, attributes), -1 where the network shall not know.
    """

    x0: Tensor
    t: Tensor
    eps: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run is after a step."""

    step: int  # steps done
    steps: int  # in all
    images: int  # pictures seen
    loss: Tensor  # of this step, on the device; reading it waits for the device
    lr: float


class Trainer:
    """The state of a training run, and the step that moves it on."""

    def __init__(self, config: TrainConfig, device: torch.device | str = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.schedule = make_schedule(config.schedule, config.T)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = UNet(config.network)
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.averages = {
            decay: ready(copy.deepcopy(self.network)) for decay in (config.ema, *config.more_emas)
        }
        self._parameters = list(self.network.parameters())
        self._weights = nn.Parameter(flatten(self.network))
        self._weights.grad = torch.zeros_like(self._weights)
        self._gradients = parts(self._weights.grad, self._parameters)
        self._narrow = NarrowCopy.of(self.network, PRECISIONS[config.precision])
        learner = self.network if self._narrow is None else self._narrow.network
        self._learning = list(learner.parameters())  # what autograd gives gradients to
        self._averages = {decay: flatten(average) for decay, average in self.averages.items()}
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(
            [self._weights],
            lr=config.lr,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=fused,
        )
        # Where AdamW looks for its count of steps: any other would be waited for at every step.
        self._counted = self.device if fused else torch.device("cpu")
        self.step = 0
        self._weight = loss_weight(self.schedule, config).float().to(self.device)

    def begin_with(self, model: DiffusionModel) -> None:
        """Take a model's weights instead of random ones; raises ValueError when they do not fit.

        A model that knows other labels than the run is taken as it draws when nothing is asked;
        what the run's own labels mean is then learned from nothing.
        """
        if list(model.labels.items()) != list(self.config.labels.items()):
            model = unlabelled(model)
        shape = replace(self.network.config, labels=model.network.config.labels)
        same = (model.network.config, model.schedule.to_json(), model.prediction) == (
            shape,
            self.schedule.to_json(),
            self.config.prediction,
        )
        if not same:
            raise ValueError("the model to begin with has another shape than the run; start anew")
        tables = {key: value for key, value in self.network.state_dict().items() if _table(key)}
        for network in (self.network, *self.averages.values()):
            network.load_state_dict(tables | model.network.state_dict())

    @property
    def ema(self) -> UNet:
        """The network with the averaged weights."""
        return self.averages[self.config.ema]

    @property
    def images(self) -> int:
        """Pictures seen so far, counting repeats."""
        return self.config.images_after(self.step)

    def run(
        self,
        pixels: np.ndarray | Tensor,
        indices: np.ndarray,
        labels: np.ndarray | None = None,
    ) -> Iterator[Progress]:
        """Train on pixels[indices] to the end of the budget, yielding after every step.

        `pixels` is uint8 (N, size, size, 3), `labels` int64 (N, attributes) with -1 for unknown.
        The caller may stop between two steps, and may save and load the state there.
        """
        while self.step < self.config.steps:
            lr = learning_rate(self.config, self.step)
            batch = self.batch(pixels, indices, self.step, labels)
            loss = self.update(batch, lr)
            self.step += 1
            yield Progress(self.step, self.config.steps, self.images, loss, lr)

    def batch(
        self,
        pixels: np.ndarray | Tensor,
        indices: np.ndarray,
        step: int,
        labels: np.ndarray | None = None,
    ) -> Batch:
        """Step k's batch: a function of (seed, k), the pictures and their labels."""
        config = self.config
        rng = generator(config.seed, TRAINING, level=step)
        # The same whether all pictures are drawn already or the pool is still growing.
        pool = len(indices) if config.pool is None else config.pool + step * config.batch
        chosen = indices[rng.integers(min(pool, len(indices)), size=config.batch)]
        # One draw, spread evenly over the levels, varies less (arXiv 2107.00630 appendix I.1).
        spread = (rng.random() + np.arange(config.batch) / config.batch) % 1
        t = torch.from_numpy(1 + np.floor(spread * config.T).astype(np.int64)).clamp(max=config.T)
        flipped = rng.random(config.batch) < 0.5
        torch_rng = torch.Generator(self.device).manual_seed(int(rng.integers(2**63)))
        told = None
        if config.labels:
            told = torch.from_numpy(some_labels(labels[chosen], rng)).to(self.device)

        if isinstance(pixels, Tensor):
            picked = pixels[torch.from_numpy(chosen).to(pixels.device)]
        else:
            picked = torch.from_numpy(np.ascontiguousarray(pixels[chosen]))
        x0 = from_uint8(picked.to(self.device))
        if config.flip:
            mirror = torch.from_numpy(flipped).to(self.device)[:, None, None, None]
            x0 = torch.where(mirror, x0.flip(-1), x0)
        eps = torch.randn(x0.shape, generator=torch_rng, device=self.device)
        return Batch(x0, t.to(self.device), eps, told)

    def loss(self, batch: Batch) -> Tensor:
        """The weighted mean squared error of the network's prediction (DDPM eq. 14)."""
        signal, noise = at_level(self.schedule, batch.t, batch.x0)
        x = signal * batch.x0 + noise * batch.eps  # DDPM eq. 4
        time = time_of(self.schedule, batch.t, torch.float32)
        network = self.network if self._narrow is None else self._narrow.following(self._weights)
        output = network(x, time, *(() if batch.labels is None else (batch.labels,)))
        off = prediction_error(
            self.config.prediction, output.float(), batch.x0, batch.eps, signal, noise
        )
        error = off.square().mean(dim=(1, 2, 3))
        return (self._weight[batch.t] * error).mean()

    def update(self, batch: Batch, lr: float) -> Tensor:
        """One optimizer step and one step of the weight averages; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.loss(batch)
        loss.backward()
        take_gradients(self._learning, self._gradients)
        clip_norm_(self._weights.grad, self.config.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            for longest, average in self._averages.items():
                decay = min(longest, (1 + self.step) / (10 + self.step))
                average.lerp_(self._weights, 1 - decay)
        return loss.detach()

    def model(self, ema: float | None = None, **about: object) -> DiffusionModel:
        """Averaged weights as a model, those of config.ema unless another of its decays is given.

        `about` is noted as how it was trained.
        """
        ema = self.config.ema if ema is None else ema
        training = {**self.config.to_json(), "ema": ema, "step": self.step, **about}
        for elsewhere in ("labels", "labels_file", "more_emas"):
            del training[elsewhere]
        # Run and folder, or a Hub name: where they are on this machine is nobody's business.
        training["start"] = "/".join(Path(training["start"]).parts[-2:])
        return DiffusionModel(
            self.averages[ema],
            self.schedule,
            self.config.prediction,
            self.config.labels,
            training,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that `load` needs, as named tensors that share the trainer's memory."""
        state = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        for decay, average in self.averages.items():
            prefix = self._prefix(decay)
            state |= {f"{prefix}{key}": value for key, value in average.state_dict().items()}
        if self.step:
            moments = self.optimizer.state[self._weights]
            for key in MOMENTS:
                state |= self._named(f"optimizer.{key}.", moments[key])
        state["step"] = torch.tensor(self.step)
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state()`, in place."""
        self.network.load_state_dict(_under("network.", state))
        for decay, average in self.averages.items():
            average.load_state_dict(_under(self._prefix(decay), state))
        self.step = int(state["step"])
        self.optimizer.state.clear()
        if self.step:
            moments = {key: torch.zeros_like(self._weights.data) for key in MOMENTS}
            for key, moment in moments.items():
                for name, part in self._named(f"optimizer.{key}.", moment).items():
                    part.copy_(state[name])
            steps = torch.tensor(float(self.step), device=self._counted)
            self.optimizer.state[self._weights] = {"step": steps, **moments}

    def _named(self, prefix: str, flat: Tensor) -> dict[str, Tensor]:
        """Parts of a tensor like the flat weights, by the parameters that they belong to."""
        names = [f"{prefix}{name}" for name, _ in self.network.named_parameters()]
        return dict(zip(names, parts(flat, self._parameters), strict=True))

    def _prefix(self, decay: float) -> str:
        return "ema." if decay == self.config.ema else f"ema@{decay:g}."


def unlabelled(model: DiffusionModel) -> DiffusionModel:
    """The same model without labels: it draws what the labelled one draws when nothing is asked."""
    if not model.labels:
        return model
    network = UNet(replace(model.network.config, labels=()))
    weights = dict(model.network.state_dict())
    # "Any" adds the first row of every table to the time's embedding, which ends in this bias.
    bias = "time.mlp.2.bias"
    tables = [key for key in weights if _table(key)]
    weights[bias] = weights[bias] + sum(weights[key][0] for key in tables)
    network.load_state_dict({key: weights[key] for key in weights if key not in tables})
    return replace(model, network=ready(network.to(model.device)), labels={})


def _table(key: str) -> bool:
    """Whether a weight tells what labels mean."""
    return key.startswith("labels.")


def some_labels(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels (B, attributes) with a random part of each row replaced by -1, "any".

    Each picture draws how likely it forgets an attribute, so that it keeps none, any number and
    all of them equally often: the network learns every subset (after arXiv 2207.12598).
    """
    likely = rng.random((len(labels), 1))
    return np.where(rng.random(labels.shape) < likely, ANY, labels)


def loss_weight(schedule: Schedule, config: TrainConfig) -> Tensor:
    """Weight of each level's loss, float64 (T + 1,): 1, or SNR between the floor and gamma.

    min(SNR, gamma) (min-SNR, arXiv 2303.09556 section 3.4) and max(SNR, floor) (truncated SNR,
    arXiv 2202.00512 section 4) weigh the error of x0; dividing by SNR, or SNR + 1, makes them
    weights for the error of eps, or of v (and dual). TrainConfig refuses a floor for eps: divided
    by an SNR of almost 0, it would give the last levels nearly all of the weight.
    """
    if config.min_snr is None and config.snr_floor is None:
        return torch.ones(schedule.T + 1, dtype=torch.float64)
    snr = schedule.snr.clamp(max=1e12)
    divisor = {"x0": torch.ones_like(snr), "eps": snr}.get(config.prediction, snr + 1)
    return snr.clamp(min=config.snr_floor, max=config.min_snr) / divisor


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
