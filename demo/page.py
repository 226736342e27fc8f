"""The whole page: header, screens, and how it is launched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from demo import compare, wording
from demo.backend import Backend
from demo.theme import theme

ASSETS = Path(__file__).parent / "assets"


def build(backend: Backend) -> gr.Blocks:
    """The page as Gradio Blocks; launch it with `launch_options()`."""
    with gr.Blocks(title=wording.TITLE, analytics_enabled=False) as page:
        gr.HTML(
            f"<header><h1>{wording.TITLE}</h1></header>", elem_id="header", apply_default_css=False
        )
        if os.environ.get("SPACE_ID"):
            gr.DuplicateButton(wording.DUPLICATE, variant="secondary", elem_id="duplicate")
        with gr.Column(elem_id="compare"):
            compare.create(backend, page)
    return page.queue(max_size=compare.WAITING)


def launch_options() -> dict[str, Any]:
    """What `launch` needs besides an address: the look, and no door that is not needed."""
    return {
        "theme": theme(),
        "head": f"<style>{_styles()}</style>{compare.head()}",
        "footer_links": [],
        "ssr_mode": False,
        "run_history": False,
        "show_error": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        "favicon_path": ASSETS / "favicon.png",
    }


def _styles() -> str:
    # Not launch(css=...): Gradio prefixes those selectors, and :root and body no longer match.
    return "\n".join((ASSETS / name).read_text() for name in ("page.css", "stage.css"))
