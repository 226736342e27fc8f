"""Other implementations, made ready to be timed beside ours: `benchmarks.sampling` does it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion import DiffusionModel
from diffusion.denoiser import at_level, to_x0

Run = Callable[[int, int], object]  # run(images, steps) draws them all the way


def diffusers_pipeline(kind: str, unet: nn.Module, prediction: str = "epsilon") -> Run:
    """DDIMPipeline or DDPMPipeline, as its documentation says to use it."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    scheduler = getattr(diffusers, f"{kind}Scheduler")(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type=prediction
    )
    pipeline = getattr(diffusers, f"{kind}Pipeline")(unet=unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)

    def run(images: int, steps: int) -> object:
        return pipeline(batch_size=images, num_inference_steps=steps, output_type="np")

    return run


def wrapped(model: DiffusionModel) -> nn.Module:
    """Our network as a diffusers model that predicts the clean image."""
    from diffusers import ConfigMixin, ModelMixin
    from diffusers.configuration_utils import register_to_config
    from diffusers.models.unets.unet_2d import UNet2DOutput

    class Wrapped(ModelMixin, ConfigMixin):
        @register_to_config
        def __init__(self, sample_size: int = 64, in_channels: int = 3):
            super().__init__()
            self.network = model.network

        def forward(self, sample: Tensor, timestep: Tensor, **_: object) -> UNet2DOutput:
            t = torch.as_tensor(timestep).reshape(-1).expand(len(sample)) + 1  # their 0 is our 1
            answer = self.network(sample, t * (1000 / model.schedule.T))
            signal, noise = at_level(model.schedule, t, sample)
            return UNet2DOutput(to_x0(model.prediction, answer, sample, signal, noise))

    return Wrapped(model.shape[1], model.shape[0])


def tutorial_unet() -> nn.Module:
    """The network of diffusers' training tutorial, at 64 px."""
    from diffusers import UNet2DModel

    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    return UNet2DModel(
        sample_size=64,
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=tuple(down),
        up_block_types=tuple(up),
    ).eval()


def lucidrains() -> tuple[Run, nn.Module]:
    """denoising-diffusion-pytorch's ddim_sample with the network of its README."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    unet = Unet(dim=64, dim_mults=(1, 2, 4, 8)).eval()
    diffusion = GaussianDiffusion(unet, image_size=64, sampling_timesteps=50, timesteps=1000)

    def run(images: int, steps: int) -> object:
        diffusion.sampling_timesteps = steps
        from contextlib import redirect_stderr
        from io import StringIO

        with redirect_stderr(StringIO()):  # its progress bar
            return diffusion.ddim_sample((images, 3, 64, 64))

    return run, unet


def plain_ddim(network: nn.Module) -> Run:
    """The least that a DDIM loop can be, around a network that predicts eps."""
    from diffusion import Noise, Schedule, ddim, sample
    from diffusion.denoiser import Denoiser

    schedule = Schedule.linear(1000)

    def run(images: int, steps: int) -> object:
        noise = Noise(range(images), (3, 64, 64))
        plan = ddim(schedule, schedule.levels(steps))
        *_, last = sample(Denoiser(network, schedule, "eps"), plan, noise(schedule.T), noise)
        return last

    return run


class ReferenceUNet(nn.Module):
    """The UNet of Diffusion-Models-pytorch, rebuilt from its description.

    64 to 256 channels at 64 to 8 px, two double convolutions on each level, self-attention after
    every change of resolution, full resolution throughout.
    """

    def __init__(self):
        super().__init__()
        self.first = _twice(3, 64)
        self.down = nn.ModuleList(
            _Level(width, after) for width, after in ((64, 128), (128, 256), (256, 256))
        )
        self.middle = nn.Sequential(_twice(256, 512), _twice(512, 512), _twice(512, 256))
        self.up = nn.ModuleList(
            _Level(width, after) for width, after in ((512, 128), (256, 64), (128, 64))
        )
        self.last = nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Predict eps; time is float (B,)."""
        frequency = 10_000 ** -(torch.arange(0, 256, 2, device=x.device) / 256)
        angle = time[:, None] * frequency
        time = torch.cat([angle.sin(), angle.cos()], dim=1)
        h, skips = self.first(x), []
        for level in self.down:
            skips.append(h)
            h = level(F.max_pool2d(h, 2), time)
        h = self.middle(h)
        for level in self.up:
            h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
            h = level(torch.cat([skips.pop(), h], dim=1), time)
        return self.last(h)


class _Level(nn.Module):
    """A residual double convolution, one that changes the width, the time, and attention."""

    def __init__(self, width: int, after: int):
        super().__init__()
        self.residual = _twice(width, width)
        self.change = _twice(width, after, width // 2 if after < width else None)
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(256, after))
        self.norm1, self.norm2 = nn.LayerNorm(after), nn.LayerNorm(after)
        self.attention = nn.MultiheadAttention(after, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(after, after), nn.GELU(), nn.Linear(after, after))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.change(F.gelu(x + self.residual(x))) + self.time(time)[:, :, None, None]
        rows = h.flatten(2).transpose(1, 2)
        normed = self.norm1(rows)
        rows = rows + self.attention(normed, normed, normed, need_weights=False)[0]
        rows = rows + self.mlp(self.norm2(rows))
        return rows.transpose(1, 2).reshape(h.shape)


def _twice(width: int, wider: int, between: int | None = None) -> nn.Sequential:
    between = between or wider
    return nn.Sequential(
        nn.Conv2d(width, between, 3, padding=1, bias=False),
        nn.GroupNorm(1, between),
        nn.GELU(),
        nn.Conv2d(between, wider, 3, padding=1, bias=False),
        nn.GroupNorm(1, wider),
    )
