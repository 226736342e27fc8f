"""What is unusual about a comparison, in a line over the panes: whose model draws, and wishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr

from demo import settings, wording_make, wording_train
from demo.backend import Backend
from demo.trainings import Trainings, about
from demo.wishes import in_words, read_asked, read_guidance
from diffusion.model import CONFIG

ASSETS = Path(__file__).parent / "assets"


def hidden_box(name: str) -> gr.Textbox:
    """A field of the form that nobody types into."""
    return gr.Textbox(settings.DEFAULTS[name], elem_id=name, visible="hidden", max_length=80)


def create(backend: Backend, trainings: Trainings) -> None:
    """The lines, inside the current Blocks; each is there while its field is not empty."""
    _line("model", partial(_drawn_by, trainings), wording_train.BACK_TO_SHIPPED)
    _line("asked", partial(_asked_for, backend), wording_make.ASK_NOTHING)


def _line(field: str, tell: Callable[[Mapping], str], back: str) -> None:
    # Gradio calls it by name.
    def words(fields: Any) -> str:
        return tell(fields if isinstance(fields, dict) else {})

    gr.HTML(
        html_template=Template((ASSETS / "notice.html").read_text()).substitute(back=back),
        js_on_load=(ASSETS / "notice.js").read_text().replace("[field]", field),
        server_functions=[words],
        apply_default_css=False,
        elem_id=f"{field}-notice",
    )


def _drawn_by(trainings: Trainings, fields: Mapping) -> str:
    run = fields.get("model")
    known = next((k for k in trainings.runs() if k.folder.name == run), None)
    if known is None:
        return wording_train.GONE
    _, config = known.config()
    title = about(known).get("title") or known.folder.name
    return wording_train.drawn_by(title, config.size)


def _asked_for(backend: Backend, fields: Mapping) -> str:
    try:
        asked = read_asked(backend.labels, fields.get("asked"))
        guidance = read_guidance(fields.get("guidance"))
    except ValueError as refusal:
        return str(refusal)
    return wording_make.asked_for(in_words(backend.labels, asked), guidance)


def folder(trainings: Trainings, run: object) -> str:
    """Where the model of a run is; raises ValueError, in a sentence, when there is none."""
    found = trainings.find(run)
    if not (found.model_folder / CONFIG).is_file():
        raise ValueError(wording_train.NO_MODEL)
    return str(found.model_folder.resolve())
