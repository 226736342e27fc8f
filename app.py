"""Cartoon Diffusion: builds the page and launches it."""

import argparse
import sys

from demo.backend import LocalBackend
from demo.page import build, launch_options
from demo.recorded import MODEL
from diffusion import DiffusionModel, ModelError
from diffusion.device import DEVICES, pick_device


def main() -> None:
    """Load the shipped model and serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Watch DDPM and DDIM turn noise into cartoons.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 7860)")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--model", default=MODEL, help="a model folder or a Hub name")
    options = parser.parse_args()
    try:
        model = DiffusionModel.from_pretrained(options.model, pick_device(options.device))
    except (ModelError, ValueError) as error:
        sys.exit(f"{error}")
    page = build(LocalBackend(model))
    page.launch(server_name=options.host, server_port=options.port, **launch_options())


if __name__ == "__main__":
    main()
