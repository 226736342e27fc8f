"""Ours beside its peers, on one machine in one run: `python -m benchmarks.sampling`.

Every contestant draws the same number of images in turn, round after round. Told are the median
milliseconds per step of the sampler, and the ratio to ours: a noisy machine disturbs both alike.
Peers that are not installed are left out (`pip install -r requirements-dev.txt`). On a machine
that does other things too, `--busy` computes with one thread and counts its CPU seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import typer

from benchmarks import peers
from benchmarks.clocks import Clock, clock
from benchmarks.peers import Run
from demo.recorded import MODEL
from diffusion import DiffusionModel, compiled
from diffusion.backends import accelerated, ways
from diffusion.device import apart, pick_device, training_precision
from diffusion.recipe import Recipe, draw
from diffusion.unet import gflop

SEEDS = 64  # whose pictures are compared between number formats


@dataclass(frozen=True)
class Contestant:
    """One way to draw pictures, and how many GFLOP a step of one image takes."""

    name: str
    run: Run
    gflop: float
    steps: int  # of the sampler, in one measurement


def main(
    batches: str = "1,4,16",
    rounds: int = 5,
    device: str = "auto",
    peers_too: bool = typer.Option(True, "--peers/--no-peers"),
    pictures: bool = typer.Option(True, help="Compare the pictures of all number formats."),
    busy: bool = typer.Option(False, help="One thread, and its CPU seconds."),
) -> None:
    """Print the tables; the first line is ours, as the page and the command line draw."""
    sizes = [int(batch) for batch in batches.split(",")]
    apart(_print, sizes, rounds, pick_device(device), peers_too, pictures, busy)


def _print(
    sizes: list[int],
    rounds: int,
    device: torch.device,
    peers_too: bool,
    pictures: bool,
    busy: bool,
) -> None:
    seconds = clock(busy)
    model = DiffusionModel.from_pretrained(MODEL, device)
    if device.type == "cpu" and compiled.version():
        compiled.convert(model)
    default = accelerated(model)
    ceiling = convolution_ceiling(device, seconds)
    print(
        f"{device.type}, {compiled.THREADS} threads, torch {torch.__version__}, "
        f"default backend {default.backend}; a large convolution runs at {ceiling:.0f} GFLOP/s\n"
    )
    contestants = list(_ours(model, default))
    contestants += _peers(model) if peers_too and device.type == "cpu" else []
    for images in sizes:
        _table(contestants, images, rounds, ceiling, seconds)
    if pictures:
        _pictures(model)


def _ours(model: DiffusionModel, default: DiffusionModel) -> Iterator[Contestant]:
    work = gflop(model.network)
    yield Contestant("ours, DDIM", _draws(default, "ddim"), work, 10)
    yield Contestant("ours, DDPM", _draws(default, "ddpm"), work, 10)
    yield Contestant("  its bare network", _bare(default), work, 10)
    for way in ways(model):
        if way != default.backend:
            yield Contestant(
                f"ours, DDIM, {way}", _draws(accelerated(model, way), "ddim"), work, 10
            )


def _peers(model: DiffusionModel) -> Iterator[Contestant]:
    size = model.shape[1]
    try:
        same, tutorial = peers.wrapped(model), peers.tutorial_unet()
        for kind in ("DDIM", "DDPM"):
            run = peers.diffusers_pipeline(kind, same, "sample")
            yield Contestant(
                f"diffusers {kind}Pipeline, our network", run, gflop(model.network), 10
            )
        work = counted(lambda: tutorial(torch.zeros(1, 3, size, size), 1))
        run = peers.diffusers_pipeline("DDIM", tutorial)
        yield Contestant("diffusers DDIMPipeline, tutorial network", run, work, 2)
    except ImportError:
        print("diffusers is not installed: left out")
    try:
        run, unet = peers.lucidrains()
        work = counted(lambda: unet(torch.zeros(1, 3, size, size), torch.zeros(1)))
        yield Contestant("denoising-diffusion-pytorch, ddim_sample", run, work, 2)
    except ImportError:
        print("denoising-diffusion-pytorch is not installed: left out")
    reference = peers.ReferenceUNet().eval()
    work = counted(lambda: reference(torch.zeros(1, 3, size, size), torch.zeros(1)))
    yield Contestant(
        "Diffusion-Models-pytorch's UNet, our loop", peers.plain_ddim(reference), work, 2
    )


def _draws(model: DiffusionModel, sampler: str) -> Run:
    return lambda images, steps: draw(model, range(images), Recipe(sampler, steps), images)


def _bare(model: DiffusionModel) -> Run:
    @torch.no_grad()
    def run(images: int, steps: int) -> None:
        x = torch.zeros(images, *model.shape, device=model.device)
        for row in Recipe("ddim", steps).plan(model.schedule):
            t = torch.full((images,), float(row.t), device=model.device)
            answer = model.compute(x, t)
        answer[0, 0, 0, 0].item()

    return run


def _table(
    contestants: list[Contestant], images: int, rounds: int, ceiling: float, now: Clock
) -> None:
    seconds = measured([lambda c=c: c.run(images, c.steps) for c in contestants], rounds, now)
    print(f"batch {images:<38} GFLOP  ms per step  times ours  share of ceiling")
    steps = [np.array(tries) / c.steps for c, tries in zip(contestants, seconds, strict=True)]
    for contestant, tries in zip(contestants, steps, strict=True):
        middle = statistics.median(tries)
        ratio = statistics.median(tries / steps[0])
        share = contestant.gflop * images / middle / ceiling
        print(
            f"{contestant.name:<44} {contestant.gflop:5.1f} {1e3 * middle:12.1f}"
            f" {ratio:10.2f}x {share:16.0%}",
            flush=True,
        )
    print()


def measured(
    works: list[Callable[[], object]], rounds: int, now: Clock = time.perf_counter
) -> list[list[float]]:
    """Seconds of each piece of work in every round, one after the other; a first one is apart."""
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(1 + rounds):
        for work, tries in zip(works, seconds, strict=True):
            compiled.compute_with_torch()  # whoever came before may have left it one thread
            start = now()
            work()
            if number:
                tries.append(now() - start)
    return seconds


@torch.no_grad()
def convolution_ceiling(device: torch.device, now: Clock = time.perf_counter) -> float:
    """GFLOP/s of a large 3×3 convolution in the best number format: what torch can reach here."""
    dtype = torch.bfloat16 if device.type != "mps" else torch.float16
    if device.type == "cpu":
        dtype = training_precision(device)
    images, width, size = (8, 128, 32) if device.type == "cpu" else (64, 256, 64)
    about = {"dtype": dtype, "device": device}
    x = torch.randn(images, width, size, size, **about).to(memory_format=torch.channels_last)
    w = torch.randn(width, width, 3, 3, **about).to(memory_format=torch.channels_last)

    def work() -> None:
        F.conv2d(x, w, padding=1)[0, 0, 0, 0].item()

    return 2e-9 * 9 * width * width * size * size * images / min(measured([work], 20, now)[0])


@torch.no_grad()
def counted(work: Callable[[], object]) -> float:
    """GFLOP of one call; attention is counted as the two products that it is."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know it
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return counter.get_total_flops() / 1e9


def _pictures(model: DiffusionModel) -> None:
    recipe = Recipe("ddim", 50)
    plain = draw(model, range(SEEDS), recipe).astype(int)
    print(f"pictures of DDIM-50, seeds 0 to {SEEDS - 1}, against float32 (of 255)")
    for way in ways(model)[1:]:
        off = np.abs(draw(accelerated(model, way), range(SEEDS), recipe) - plain)
        p99 = np.percentile(off, 99)
        print(f"{way:<44} mean {off.mean():.3f}, p99 {p99:.0f}, max {off.max()}", flush=True)


if __name__ == "__main__":
    typer.run(main)
