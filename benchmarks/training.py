"""How fast a training step is: `python -m benchmarks.training`.

Ours beside the loop of diffusers' unconditional training example, written with the same calls of
diffusers and Accelerate: same network, pictures, batch, precision and threads, alternating in one
process. And how much longer a step takes than three forward passes, which is what the network's
own arithmetic costs (one forward, and a backward of twice that). On a machine that does other
things too, `--busy` computes with one thread and counts its CPU seconds.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from benchmarks.clocks import clock
from diffusion.cartoons import STYLES, face
from diffusion.cpus import cpus
from diffusion.device import pick_device, precision_name
from diffusion.train_config import PRECISIONS, PRESETS, TrainConfig
from diffusion.training import Trainer
from diffusion.unet import UNet

PICTURES = 256
WARM_UP = 3  # steps


def main(
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "tiny",
    style: Annotated[str, typer.Option(help=", ".join(STYLES))] = "toon-head",
    rounds: Annotated[int, typer.Option(help="Of each, alternating.")] = 7,
    steps: Annotated[int, typer.Option(help="In a round.")] = 12,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    busy: Annotated[bool, typer.Option(help="One thread, and its CPU seconds.")] = False,
) -> None:
    """Print one table: medians over the rounds, and ratios within them."""
    now = clock(busy)
    where = pick_device(device)
    precision = precision_name(where)
    threads = 1 if busy else cpus()
    config = TrainConfig(images=10**9, precision=precision, threads=threads, **PRESETS[preset])
    torch.set_num_threads(threads)
    pixels = np.stack([face(style, i, config.size)[0] for i in range(PICTURES)])
    contestants = {
        "ours": _ours(config, pixels, where),
        "diffusers": _diffusers(config, pixels, where),
        "three forwards": _forwards(config, where),
    }
    for step in contestants.values():
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, step in contestants.items():
            begun = now()
            for _ in range(steps):
                step()
            times[name].append((now() - begun) / steps)
    print(
        f"{preset}: {config.size} px, batch {config.batch}, {precision}, {threads} threads, {where}"
    )
    print("                ms/step  images/s")
    for name, found in times.items():
        seconds = statistics.median(found)
        print(f"{name:>14}  {1000 * seconds:>7.1f}  {config.batch / seconds:>8.1f}")
    print(
        f"ours is {_ratio(times['diffusers'], times['ours']):.2f} times as fast as diffusers' loop"
    )
    print(f"a step takes {_ratio(times['ours'], times['three forwards']):.2f} times three forwards")


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _ours(config: TrainConfig, pixels: np.ndarray, device: torch.device) -> Callable[[], None]:
    run = Trainer(config, device).run(pixels, np.arange(len(pixels)))
    return lambda: _wait(next(run).loss)


def _forwards(config: TrainConfig, device: torch.device) -> Callable[[], None]:
    """Three passes in the same precision, with what a backward needs being kept."""
    network = UNet(config.network).to(device, memory_format=torch.channels_last)
    network.to(PRECISIONS[config.precision])
    x = torch.randn(config.batch, 3, config.size, config.size, device=device)
    t = torch.rand(config.batch, device=device) * 1000

    def step() -> None:
        for _ in range(3):
            output = network(x, t)
        _wait(output)

    return step


def _diffusers(config: TrainConfig, pixels: np.ndarray, device: torch.device) -> Callable[[], None]:
    """A step as examples/unconditional_image_generation of diffusers makes it, EMA included."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    mixed = "bf16" if config.precision == "bfloat16" else "no"
    accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")
    network: nn.Module = UNet(config.network)
    average = EMAModel(network.parameters(), decay=config.ema, use_ema_warmup=True)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, betas=(0.95, 0.999))
    rate = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=10**6)
    loader = torch.utils.data.DataLoader(_Files(pixels), batch_size=config.batch, shuffle=True)
    network, optimizer, loader, rate = accelerator.prepare(network, optimizer, loader, rate)
    average.to(accelerator.device)
    batches = _forever(loader)

    def step() -> None:
        clean = next(batches)
        noise = torch.randn(clean.shape, device=clean.device)
        t = torch.randint(0, 1000, (len(clean),), device=clean.device)
        noisy = scheduler.add_noise(clean, noise, t)
        with accelerator.accumulate(network):
            output = network(noisy, t)
            loss = F.mse_loss(output.float(), scheduler.get_velocity(clean, noise, t).float())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        average.step(network.parameters())
        _wait(loss.detach())

    return step


class _Files(torch.utils.data.Dataset):
    """PNG files, decoded and transformed when they are read, as the example does."""

    def __init__(self, pixels: np.ndarray):
        self._files = []
        for picture in pixels:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            self._files.append(buffer.getvalue())
        side = pixels.shape[1]
        self._transform = transforms.Compose(
            [
                transforms.Resize(side, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(side),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(io.BytesIO(self._files[index])) as image:
            return self._transform(image.convert("RGB"))


def _forever(loader: torch.utils.data.DataLoader) -> Iterator[Tensor]:
    while True:
        yield from loader


def _wait(value: Tensor) -> None:
    """Until the device has come so far."""
    value.sum().item()


if __name__ == "__main__":
    typer.run(main)
