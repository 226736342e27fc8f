"""Which model the Compare screen draws with: the shipped one, or that of a training."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

import gradio as gr

from demo import settings
from demo import wording_train as wording
from demo.trainings import Trainings, about
from diffusion.model import CONFIG

ASSETS = Path(__file__).parent / "assets"


def box() -> gr.Textbox:
    """The form's field that holds a run's name; empty for the shipped model."""
    return gr.Textbox(settings.DEFAULTS["model"], elem_id="model", visible="hidden", max_length=80)


def create(model: gr.Textbox, trainings: Trainings) -> None:
    """A line over the panes while a run's model draws, and the answer to "Open in Compare"."""

    def name(run: Any) -> str:
        known = next((k for k in trainings.runs() if k.folder.name == run), None)
        if known is None:
            return wording.GONE
        _, config = known.config()
        title = about(known).get("title") or known.folder.name
        return wording.drawn_by(title, config.size)

    line = gr.HTML(
        html_template=Template((ASSETS / "drawn_by.html").read_text()).substitute(
            back=wording.BACK_TO_SHIPPED
        ),
        js_on_load=(ASSETS / "drawn_by.js").read_text(),
        server_functions=[name],
        apply_default_css=False,
        elem_id="drawn-by",
    )
    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    line.choose(None, None, model, js="() => window.cartoonModel.wanted", **quiet)
    model.change(None, model, None, js="(run) => window.cartoonModel.show(run)", **quiet)


def folder(trainings: Trainings, run: object) -> str:
    """Where the model of a run is; raises Refused when there is none."""
    found = trainings.find(run)
    if not (found.model_folder / CONFIG).is_file():
        raise ValueError(wording.NO_MODEL)
    return str(found.model_folder.resolve())
