"""The Make screen: faces made to order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import gradio as gr

from demo import markup, settings, wording_make
from demo.making import Choice, Maker, choices
from demo.markup import shown
from demo.models import OWN, Offer
from demo.service import LIMITS

SCRIPTS = ("words.js", "aside.js", "storage.js", "keep.js", "insist.js", "make.js")


def create(maker: Maker) -> None:
    """Lay the screen out and connect it, inside the current Blocks."""

    # Gradio calls these by name; the methods of an object have none that it could mark.
    async def ack(receipt: Any) -> None:
        maker.service.viewers.acknowledge(receipt)

    async def halt(wish: Any) -> None:
        maker.service.viewers.halt(wish)

    async def opening(_: Any = None) -> dict | None:
        return maker.opening()

    async def keep(wish: Any) -> dict:
        return await maker.service.keep(wish)

    screen = gr.HTML(
        value={},
        html_template=_html(maker),
        js_on_load=markup.text(*SCRIPTS),
        server_functions=[ack, halt, opening, keep],
        apply_default_css=False,
        elem_id="maker",
        show_label=False,
    )

    async def order(event: gr.EventData) -> AsyncIterator[dict[str, Any]]:
        fields = event._data if isinstance(event._data, dict) else {}
        async for message in maker.answers(fields):
            yield message

    screen.order(order, None, screen, show_progress="hidden", api_visibility="private", **LIMITS)


def _html(maker: Maker) -> str:
    offers = maker.models.offers.values()
    words = {**wording_make.SCREEN, **settings.ORDER, "models": _models(offers)}
    wishes = "".join(_wishes(offer) for offer in offers)
    if not any(offer.labels for offer in offers):
        words["lede"] = wording_make.NO_WISHES
    return markup.template("make", words, wishes=wishes)


def _models(offers: Collection[Offer]) -> str:
    """Which model draws, where there are several."""
    if len(offers) < 2:
        return ""
    choices = [Choice(offer.name, offer.title) for offer in offers]
    return _fieldset(wording_make.MODEL, "model", choices, OWN)


def _wishes(offer: Offer) -> str:
    """What one model can be asked for; the script shows that of the chosen one."""
    palette = offer.reader.palette if offer.reader else {}
    prefix = f"{offer.name}/" if offer.name else ""
    fieldsets = "".join(
        _fieldset(wording_make.attribute(name), f"{prefix}{name}", found, "")
        for name, found in choices(offer.labels, palette).items()
    )
    return f'<div class="wishes" data-model="{shown(offer.name)}">{fieldsets}</div>'


def _fieldset(legend: str, name: str, offered: Sequence[Choice], first: str) -> str:
    kind = "swatches" if any(choice.colour for choice in offered) else "words"
    radios = "".join(_radio(name, choice, first) for choice in offered)
    words = shown(legend)
    return f'<fieldset class="{kind}"><legend>{words}</legend><div>{radios}</div></fieldset>'


def _radio(name: str, choice: Choice, first: str) -> str:
    words, value = shown(choice.words), shown(choice.value)
    checked = " checked" if choice.value == first else ""
    radio = f'<input type="radio" name="{shown(name)}" value="{value}"{checked}>'
    if choice.colour:
        # The words are there for those who do not see colours, and under the pointer.
        hint = f'style="--colour: {shown(choice.colour)}" title="{words}"'
        return f'<label class="swatch" {hint}>{radio}<i>{words}</i></label>'
    return f"<label>{radio}<span>{words}</span></label>"
