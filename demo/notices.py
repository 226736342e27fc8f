"""What is unusual about a comparison, in a line over the panes: whose model draws, and wishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from demo import markup, settings, wording, wording_make
from demo.models import Models
from demo.wishes import in_words, read_asked, read_guidance

# The fields of the form that nobody types into: all that the lines tell of depends on them alone.
FIELDS = ("model", "asked", "guidance", "finish")


def hidden_box(name: str) -> gr.Textbox:
    """A field of the form that nobody types into."""
    return gr.Textbox(
        settings.DEFAULTS[name], elem_id=name, visible="hidden", max_length=settings.LONGEST_NAME
    )


def create(models: Models) -> None:
    """The lines, inside the current Blocks; each is there while its field is not empty."""
    # What was asked of one model means nothing to another.
    _line(["model", "asked"], lambda fields: models.told(fields.get("model")), wording.BACK_TO_OWN)
    _line(["asked"], lambda fields: _asked_for(models, fields), wording_make.ASK_NOTHING)
    _line(["finish"], lambda fields: wording_make.FINISHED, wording_make.UNFINISH)


def _line(cleared: Sequence[str], tell: Callable[[Mapping], str], back: str) -> None:
    """A line about the first of these fields; all of them are cleared by the way back."""

    # Gradio calls it by name.
    def words(fields: Any) -> str:
        return tell(fields if isinstance(fields, dict) else {})

    gr.HTML(
        html_template=markup.template("notice", back=back),
        js_on_load=markup.script("notice", cleared=cleared, fields=FIELDS),
        server_functions=[words],
        apply_default_css=False,
        elem_id=f"{cleared[0]}-notice",
    )


def _asked_for(models: Models, fields: Mapping) -> str:
    try:
        labels = models.labels(fields.get("model"))
        asked = read_asked(labels, fields.get("asked"))
        guidance = read_guidance(fields.get("guidance"))
    except ValueError as refusal:
        return str(refusal)
    return wording_make.asked_for(in_words(labels, asked), guidance)
