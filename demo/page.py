"""The whole page: header, screens, and how it is launched."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from demo import compare, make, tabs, train, wording, wording_make
from demo.backend import Backend
from demo.doors import Doors
from demo.making import Maker
from demo.markup import ASSETS, text
from demo.models import Models
from demo.quality import Quality
from demo.recorded import MODEL
from demo.service import RUNS_AT_ONCE, WAITING, Service
from demo.sweeper import sweeping
from demo.theme import properties, theme
from demo.trainings import Trainings
from demo.uploads import MOST_SENT
from diffusion.cache import cache_dir
from diffusion.reader import AttributeReader

STYLES = ("page.css", "stage.css", "quality.css", "make.css", "tabs.css", "train.css")


RUNS = Path(os.environ.get("CARTOON_RUNS") or Path(__file__).parent.parent / "runs")
SCREENS = {"compare": wording.COMPARE, "make": wording.MAKE, "train": wording.TRAIN}
# Gradio looks for clicks a thousand times a second, a twelfth of a processor while nobody clicks.
LOOKS = 0.01  # seconds from one look to the next
# Seconds, after which a file that was sent is forgotten, also when others of the same upload are
# still on their way: 5 GB take 5.6 hours at 2 Mbit/s.
UPLOADS_KEPT = 6 * 3600
ANSWERS_AT_ONCE = 40  # beside the runs
SESSIONS = 1000  # visitors whose state Gradio keeps, 81 kB for each


def build(
    backend: Backend,
    trainings: Trainings | None = None,
    reader: AttributeReader | None = None,
    quality: Quality | None = None,
    model: str = str(MODEL),
) -> gr.Blocks:
    """The page as Gradio Blocks; launch it with `launch_options()`.

    `reader` tells whether faces came as they were asked for, if it knows the model's attributes;
    `quality` is what was measured of the model that `backend` draws with, `model` is its name.
    """
    trainings = trainings or open_trainings()
    models = Models(backend, trainings, reader, own=model)
    service = Service(backend, models.folder)
    kept = (UPLOADS_KEPT // 4, UPLOADS_KEPT)
    with gr.Blocks(title=wording.TITLE, analytics_enabled=False, delete_cache=kept) as page:
        tabs.create(SCREENS)
        if os.environ.get("SPACE_ID"):
            gr.DuplicateButton(wording.DUPLICATE, variant="secondary", elem_id="duplicate")
        with gr.Column(elem_id="compare", elem_classes="screen"):
            compare.create(service, page, models, quality)
        with gr.Column(elem_id="make", elem_classes="screen"):
            make.create(Maker(service, models))
        with gr.Column(elem_id="train", elem_classes="screen"):
            train.create(trainings, lambda: backend.busy)
        gr.HTML(_credits(models), elem_id="credits", apply_default_css=False)
    page.queue(max_size=WAITING)
    page._queue.sleep_when_free = LOOKS
    return page


def _credits(models: Models) -> str:
    """Whose pictures the shipped models learned from."""
    credits = filter(None, (offer.credit for offer in models.offers.values()))
    return f"<p>{' '.join([wording_make.CREDIT, *credits])}</p>"


def open_trainings(device: str = "auto") -> Trainings:
    """The trainings of this machine, where its folder can be written; else those of its cache.

    Raises ValueError where neither can be, and where somebody chose the folder.
    """
    try:
        return Trainings(RUNS, device=device)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if os.environ.get("CARTOON_RUNS"):
            # Runs that went elsewhere would be missed, and lost with a container.
            raise ValueError(
                f"CARTOON_RUNS is {RUNS}, which cannot be written ({reason}); "
                "let this user write there, or choose another folder."
            ) from None
    try:
        trainings = Trainings(cache_dir("runs"), device=device)
    except OSError:
        raise ValueError(
            f"Neither {RUNS} nor the cache can be written ({reason}); "
            "set CARTOON_RUNS to a folder that can."
        ) from None
    print(f"* Trainings are kept in {trainings.root}; {RUNS} cannot be written ({reason}).")
    return trainings


def launch_options(T: int = 1000) -> dict[str, Any]:
    """What `launch` needs besides an address: the look, and no door that is not needed.

    `T` is that of the page's model: the form opens with no more steps.
    """
    return {
        "theme": theme(),
        "head": f"<style>{_styles()}</style><script>{_first()}</script>{compare.head(T)}",
        "footer_links": [],
        "ssr_mode": False,
        "run_history": False,
        "show_error": False,
        "enable_monitoring": False,
        "max_file_size": MOST_SENT,
        "max_threads": RUNS_AT_ONCE + ANSWERS_AT_ONCE,  # a run takes the place of a thread
        "state_session_capacity": SESSIONS,
        "app_kwargs": {
            "middleware": [Middleware(Doors)],
            "lifespan": partial(sweeping, kept=UPLOADS_KEPT),
        },
        "favicon_path": ASSETS / "favicon.png",
    }


def _styles() -> str:
    # Not launch(css=...): Gradio prefixes those selectors, and :root and body no longer match.
    return properties() + text(*STYLES)


def _first() -> str:
    return text("rest.js", "connection.js")
