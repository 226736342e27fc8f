"""The Make screen: faces made to order."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr

from demo import making, settings, wording_make
from demo.making import Choice, Maker
from demo.service import LIMITS

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("words.js", "keep.js", "make.js")


def create(maker: Maker) -> None:
    """Lay the screen out and connect it, inside the current Blocks."""

    # Gradio calls these by name; the methods of an object have none that it could mark.
    async def ack(receipt: Any) -> None:
        maker.service.viewers.acknowledge(receipt)

    async def opening(_: Any = None) -> dict | None:
        return maker.opening()

    async def keep(wish: Any) -> dict:
        return await maker.service.keep(wish)

    screen = gr.HTML(
        value={},
        html_template=_html(maker),
        js_on_load="\n".join((ASSETS / name).read_text() for name in SCRIPTS),
        server_functions=[ack, opening, keep],
        apply_default_css=False,
        elem_id="maker",
        show_label=False,
    )

    async def order(event: gr.EventData) -> AsyncIterator[dict[str, Any]]:
        fields = event._data if isinstance(event._data, dict) else {}
        async for message in maker.run(fields):
            yield message

    ordering = screen.order(
        order, None, screen, show_progress="hidden", api_visibility="private", **LIMITS
    )
    screen.halt(
        lambda: {"type": "stopped"},
        None,
        screen,
        cancels=[ordering],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _html(maker: Maker) -> str:
    offered = making.choices(maker.labels, maker.palette)
    wishes = "".join(_wish(name, choices) for name, choices in offered.items())
    words = {**wording_make.SCREEN, **settings.ORDER}
    if not offered:
        words["lede"] = wording_make.NO_WISHES
    return Template((ASSETS / "make.html").read_text()).substitute(words, wishes=wishes)


def _wish(name: str, choices: Sequence[Choice]) -> str:
    told = html.escape(wording_make.attribute(name))
    swatches = any(choice.colour for choice in choices)
    radios = "".join(_radio(name, choice, swatches) for choice in choices)
    kind = "swatches" if swatches else "words"
    return f'<fieldset class="{kind}"><legend>{told}</legend><div>{radios}</div></fieldset>'


def _radio(name: str, choice: Choice, swatches: bool) -> str:
    words = html.escape(choice.words)
    value = "" if choice.index < 0 else choice.index
    checked = " checked" if choice.index < 0 else ""
    radio = f'<input type="radio" name="{html.escape(name)}" value="{value}"{checked}>'
    if choice.colour:
        # The words are there for those who do not see colours, and under the pointer.
        shown = f'style="--colour: {choice.colour}" title="{words}"'
        return f'<label class="swatch" {shown}>{radio}<i>{words}</i></label>'
    return f"<label>{radio}<span>{words}</span></label>"
