"""The header: the name, a tab for each screen, and how far a training is."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from demo import markup, wording

SCRIPTS = ("storage.js", "tabs.js")


def create(screens: Mapping[str, str]) -> None:
    """Lay the header out, with a tab for each screen: {name of its column: words}."""
    tabs = "".join(
        f'<button type="button" role="tab" data-tab="{name}" aria-controls="{name}">'
        f"{words}</button>"
        for name, words in screens.items()
    )
    gr.HTML(
        html_template=markup.template("tabs", wording.HEADER, tabs=tabs),
        js_on_load=markup.text(*SCRIPTS),
        apply_default_css=False,
        elem_id="header",
    )
