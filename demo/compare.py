"""The Compare screen: two samplers, one network, the same noise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from demo import markup, notices, settings, wording
from demo import quality as chart
from demo.models import Models
from demo.quality import Quality
from demo.service import LIMITS, Service

SCRIPTS = (
    "words.js",
    "aside.js",
    "film.js",
    "clock.js",
    "timeline.js",
    "panes.js",
    "equation.js",
    "keep.js",
    "insist.js",
    "play_button.js",
    "player.js",
    "sharing.js",
    "stage.js",
)


def create(
    service: Service, page: gr.Blocks, models: Models, quality: Quality | None = None
) -> None:
    """Lay the screen out and connect it, inside the current Blocks."""
    hidden = {name: notices.hidden_box(name) for name in notices.FIELDS}
    form = defaults(service.backend.schedule.T)
    notices.create(models)
    stage = _stage(service, form)
    with gr.Row(elem_id="controls"):
        with gr.Row(elem_id="action"):
            run_button = gr.Button(wording.RUN, variant="primary", elem_id="run")
            gr.Button(wording.STOP, variant="primary", elem_id="stop")
        seed = _field(wording.SEED, "seed")
        dice = gr.Button(wording.NEW_SEED, elem_id="dice")
        faces = _choice(wording.FACES, "faces", [(str(n), n) for n in settings.FACES])
        left_steps = _field(wording.steps_label("ddpm"), "left_steps", form["left_steps"])
        right_steps = _field(wording.steps_label("ddim"), "right_steps", form["right_steps"])
        right_eta = _field(wording.ETA, "right_eta")
        _html("view", wording.VIEW)
    with gr.Row(elem_id="more"):
        left_sampler, left_spacing, left_eta = _side("left")
        right_sampler, right_spacing, _ = _side("right")
        if quality:
            chart.create(quality)
        _html("setup", wording.SETUP)
    gr.HTML(
        f"<div class='chips'><span>{wording.TRY}</span></div><p class='says'></p>",
        elem_id="examples",
        js_on_load=None,
        apply_default_css=False,
    )
    _html("equation", wording.EQUATION)

    boxes = {
        "seed": seed,
        "faces": faces,
        "left_steps": left_steps,
        "right_steps": right_steps,
        "right_eta": right_eta,
        "left_sampler": left_sampler,
        "left_eta": left_eta,
        "left_spacing": left_spacing,
        "right_sampler": right_sampler,
        "right_spacing": right_spacing,
        **hidden,
    }
    fields = [boxes[name] for name in settings.DEFAULTS]

    async def run(*values: Any) -> AsyncIterator[dict[str, Any]]:
        async for message in service.run(dict(zip(settings.DEFAULTS, values, strict=True))):
            yield message

    async def replay(event: gr.EventData) -> AsyncIterator[dict[str, Any]]:
        async for message in service.replay(event._data):
            yield message

    streaming = {"outputs": stage, "show_progress": "hidden", **LIMITS}
    run_button.click(run, fields, api_name="compare", **streaming)
    stage.replay(replay, None, api_visibility="private", **streaming)
    # The rest happens in the browser.
    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    gr.on(
        [left_sampler.change, right_sampler.change],
        None,
        [left_sampler, right_sampler],
        [left_steps, right_steps, left_eta, right_eta],
        js="(left, right) => cartoon.labels(left, right)",
        **quiet,
    )
    dice.click(None, None, seed, js="() => String(Math.floor(Math.random() * 1e6))", **quiet)
    stage.settings(None, None, fields, js="() => cartoon.take()", **quiet)
    page.load(None, None, fields, js="() => cartoon.initial()", **quiet)
    gr.on(
        [box.change for box in fields],
        None,
        fields,
        None,
        js="(...fields) => cartoon.remember(...fields)",
        **quiet,
    )


def defaults(T: int) -> dict[str, str | int]:
    """The form as it opens, with no more steps than a model with levels 0 to T can make."""
    steps = {
        name: str(min(int(value), T))
        for name, value in settings.DEFAULTS.items()
        if name.endswith("_steps")
    }
    return {**settings.DEFAULTS, **steps}


def head(T: int) -> str:
    """The script that the page needs before its components are there; T is the model's."""
    labels = {
        left: {right: _labels(left, right) for right in settings.SAMPLERS}
        for left in settings.SAMPLERS
    }
    script = markup.script("address", defaults=defaults(T), labels=labels)
    return f"<script>{script}</script>"


def _stage(service: Service, form: dict[str, str | int]) -> gr.HTML:
    # Gradio calls these by name; the methods of an object have none that it could mark.
    async def ack(receipt: Any) -> None:
        service.viewers.acknowledge(receipt)

    async def halt(wish: Any) -> None:
        service.viewers.halt(wish)

    async def look(wish: Any) -> None:
        service.viewers.look(wish)

    async def opening(_: Any = None) -> dict | None:
        return await service.opening()

    async def examples(_: Any = None) -> list[dict]:
        return await service.examples()

    async def fill(wish: Any) -> dict:
        return await service.fill(wish)

    async def keep(wish: Any) -> dict:
        return await service.keep(wish)

    async def read(wish: Any) -> dict:
        return await service.read(wish)

    comparison = settings.read_comparison(service.backend.schedule.T, **form)
    left, right = (wording.how(recipe) for recipe in comparison.recipes)
    return gr.HTML(
        value={},
        html_template=markup.template("stage", wording.STAGE, left_how=left, right_how=right),
        js_on_load=markup.text(*SCRIPTS),
        server_functions=[ack, halt, look, opening, examples, fill, keep, read],
        apply_default_css=False,
        elem_id="stage",
        show_label=False,
    )


def _labels(left: str, right: str) -> list[dict]:
    """What the fields of steps and η become with these samplers: Gradio's updates of them."""
    labels = wording.labels(left, right)
    return [
        gr.update(label=labels["left_steps"]),
        gr.update(label=labels["right_steps"]),
        gr.update(interactive=left == "ddim"),
        gr.update(interactive=right == "ddim", label=labels["right_eta"]),
    ]


def _side(side: str) -> tuple[gr.Radio, gr.Radio, gr.Textbox | None]:
    """What a side can choose under More; the right side's η is in the row with Run."""
    name = wording.SIDES[side]
    with gr.Column(elem_id=f"{side}_more", elem_classes="side"):
        sampler = _choice(
            f"{name} {wording.SAMPLER}",
            f"{side}_sampler",
            [(wording.SAMPLERS[key], key) for key in settings.SAMPLERS],
        )
        with gr.Row(elem_classes="line"):
            spacing = _choice(
                f"{name} {wording.SPACING}",
                f"{side}_spacing",
                [(words, key) for key, words in wording.SPACINGS.items()],
            )
            eta = None
            if side == "left":
                eta = _field(f"{name} {wording.ETA}", "left_eta", interactive=False)
    return sampler, spacing, eta


def _field(label: str, name: str, value: object = None, interactive: bool = True) -> gr.Textbox:
    return gr.Textbox(
        str(settings.DEFAULTS[name] if value is None else value),
        label=label,
        elem_id=name,
        elem_classes="field",
        interactive=interactive,
        max_lines=1,
        max_length=40,
        min_width=40,
        html_attributes=gr.InputHTMLAttributes(
            autocomplete="off", spellcheck=False, enterkeyhint="go"
        ),
    )


def _choice(label: str, name: str, choices: list[tuple[str, Any]]) -> gr.Radio:
    box = gr.Radio(choices, value=settings.DEFAULTS[name], label=label, elem_id=name, min_width=40)
    box.preprocess = lambda value: value  # settings.py words every refusal
    return box


def _html(name: str, words: dict[str, str]) -> gr.HTML:
    template = markup.template(name, words)
    return gr.HTML(template, elem_id=name, js_on_load=None, apply_default_css=False)
