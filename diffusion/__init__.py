"""Diffusion models small enough to watch: DDPM and DDIM on the same weights and noise."""

from diffusion.denoiser import Denoiser
from diffusion.model import DiffusionModel, ModelError
from diffusion.noise import Noise, noise
from diffusion.samplers import Frame, Plan, Step, ddim, ddpm, dpmpp_2m, mix, sample
from diffusion.schedule import Schedule
from diffusion.unet import UNet, UNetConfig

__version__ = "0.1.0"

__all__ = [
    "Denoiser",
    "DiffusionModel",
    "Frame",
    "ModelError",
    "Noise",
    "Plan",
    "Schedule",
    "Step",
    "UNet",
    "UNetConfig",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "mix",
    "noise",
    "sample",
]
