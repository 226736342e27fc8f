"""Cartoon Diffusion: builds the page and launches it."""

import argparse
import os
import sys

if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  # has to come before torch

from demo import quick  # noqa: F401, I001  # has to come before gradio
from demo import quality
from demo.backend import Backend, LocalBackend
from demo.page import build, launch_options, open_trainings
from demo.recorded import MODEL
from diffusion import DiffusionModel, ModelError
from diffusion.backends import BACKENDS, accelerated
from diffusion.compiled import compute_with_torch
from diffusion.device import DEVICES, keep_memory, pick_device
from diffusion.reader import reader_beside

MAX_PORT = 65535


def main() -> None:
    """Load the shipped model and serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Watch DDPM and DDIM turn noise into cartoons.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=port, help="port to listen on (default 7860)")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--backend", default="auto", choices=BACKENDS, help="how the CPU computes")
    parser.add_argument("--model", default=MODEL, help="a model folder or a Hub name")
    options = parser.parse_args()
    keep_memory()
    compute_with_torch()
    try:
        reader = reader_beside(options.model)
        trainings = open_trainings(training_device(options))
        backend = choose_backend(options)
    except (ModelError, ValueError) as error:
        sys.exit(f"{error}")
    print(f"* Who adds ?operator={trainings.operator} to the address may end anybody's training.")
    try:
        measured = quality.load(options.model, backend.weights)
        page = build(backend, trainings, reader, measured, str(options.model))
        how = launch_options(backend.schedule.T)
        page.launch(server_name=options.host, server_port=options.port, **how)
    except OSError as error:  # the port is taken, or the address is none of this machine's
        sys.exit(f"{error}")
    finally:
        backend.close()


def port(text: str) -> int:
    """A port's number; raises ArgumentTypeError for what is none."""
    if not (text.isdecimal() and 1 <= int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text} is no port; choose 1 to {MAX_PORT}")
    return int(text)


def choose_backend(options: argparse.Namespace) -> Backend:
    """A borrowed GPU where Spaces lends one, else this machine's own device."""
    if os.environ.get("SPACES_ZERO_GPU"):
        from demo.zerogpu import ZeroGPUBackend

        return ZeroGPUBackend(options.model, options.backend)
    model = DiffusionModel.from_pretrained(options.model, pick_device(options.device))
    local = LocalBackend(accelerated(model, options.backend), backend=options.backend)
    if options.backend == "auto":
        local.improve()
    return local


def training_device(options: argparse.Namespace) -> str:
    """Where the Train tab trains: a GPU that Spaces lends is there for moments only."""
    return "cpu" if os.environ.get("SPACES_ZERO_GPU") else options.device


if __name__ == "__main__":
    main()
