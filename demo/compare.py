"""The Compare screen: two samplers, one network, the same noise."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr

from demo import messages, recorded, settings, wording
from demo.backend import Backend, Note, RunEnded, Tick
from demo.viewers import Viewer, Viewers
from diffusion.engine import Full
from diffusion.film import Place

ASSETS = Path(__file__).parent / "assets"
# Streams cost next to nothing while they wait, and the engine has a line of its own that tells
# place and seconds: Gradio's should never be reached.
RUNS_AT_ONCE, WAITING = 256, 64

log = logging.getLogger(__name__)


def create(backend: Backend) -> None:
    """Lay the screen out and connect it, inside the current Blocks."""
    viewers = Viewers()

    async def run(
        seed: str, faces: int, ddpm_steps: str, ddim_steps: str, eta: str
    ) -> AsyncIterator[dict[str, Any]]:
        async for message in compare(backend, viewers, (seed, faces, ddpm_steps, ddim_steps, eta)):
            yield message

    async def ack(receipt: Any) -> None:
        viewers.acknowledge(receipt)

    async def film(_: Any = None) -> list[dict]:
        return recorded.load()

    stage = gr.HTML(
        value={},
        html_template=Template((ASSETS / "stage.html").read_text()).substitute(wording.STAGE),
        js_on_load="\n".join((ASSETS / name).read_text() for name in SCRIPTS),
        server_functions=[ack, film],
        apply_default_css=False,
        elem_id="stage",
        show_label=False,
    )
    with gr.Row(elem_id="controls"):
        with gr.Row(elem_id="action"):
            run_button = gr.Button(wording.RUN, variant="primary", elem_id="run")
            stop_button = gr.Button(wording.STOP, variant="primary", elem_id="stop")
        seed = _field(wording.SEED, "seed")
        dice = gr.Button(wording.NEW_SEED, elem_id="dice")
        faces = gr.Radio(
            list(settings.FACES),
            value=settings.DEFAULTS["faces"],
            label=wording.FACES,
            elem_id="faces",
            min_width=40,
        )
        faces.preprocess = lambda value: value  # settings.py words every refusal
        ddpm_steps = _field(wording.DDPM_STEPS, "ddpm_steps")
        ddim_steps = _field(wording.DDIM_STEPS, "ddim_steps")
        eta = _field(wording.ETA, "eta")

    fields = [seed, faces, ddpm_steps, ddim_steps, eta]
    pressed = [run_button.click, *(box.submit for box in fields if box is not faces)]
    running = gr.on(
        pressed,
        run,
        fields,
        stage,
        api_name="compare",
        show_progress="hidden",
        concurrency_limit=RUNS_AT_ONCE,
        trigger_mode="once",
    )
    stop_button.click(
        lambda: {"type": "stopped"},
        None,
        stage,
        cancels=[running],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    dice.click(
        None, None, seed, js="() => String(Math.floor(Math.random() * 1e6))", show_progress="hidden"
    )


SCRIPTS = ("film.js", "timeline.js", "stage.js")


async def compare(
    backend: Backend, viewers: Viewers, fields: tuple
) -> AsyncIterator[dict[str, Any]]:
    """The messages of one press of Run: a start and frames, or a problem in one sentence."""
    try:
        comparison = settings.read_comparison(*fields, T=backend.schedule.T)
        with viewers.watch() as viewer:
            yield messages.start(viewer.run, comparison, backend.schedule, backend.size)
            async for message in _watch(backend, viewer, comparison):
                yield message
    except (ValueError, Full, RunEnded) as refusal:
        yield messages.problem(str(refusal))
    except Exception as error:
        log.exception("a comparison failed")
        yield messages.problem(wording.failed(error))


async def _watch(
    backend: Backend, viewer: Viewer, comparison: settings.Comparison
) -> AsyncIterator[dict[str, Any]]:
    before = None
    async with contextlib.aclosing(backend.stream(comparison)) as ticks:
        async for tick in ticks:
            match tick:
                case Place(number, seconds):
                    yield messages.aside(viewer.run, wording.waiting(number, seconds))
                case Note(words):
                    yield messages.aside(viewer.run, words)
                case Tick() if tick.done or not viewer.behind:
                    # Compression on another thread: this one serves everybody.
                    message = await asyncio.to_thread(
                        messages.frame,
                        viewer.run,
                        viewer.sent + 1,
                        tick,
                        before,
                        comparison,
                        backend.schedule,
                    )
                    viewer.send(messages.size(message))
                    yield message
                    before = tick


def _field(label: str, name: str) -> gr.Textbox:
    return gr.Textbox(
        str(settings.DEFAULTS[name]),
        label=label,
        elem_id=name,
        elem_classes="field",
        max_lines=1,
        max_length=40,
        min_width=40,
        html_attributes=gr.InputHTMLAttributes(
            autocomplete="off", spellcheck=False, enterkeyhint="go"
        ),
    )
