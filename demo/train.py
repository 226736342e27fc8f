"""The Train tab: three choices and one button, and a training that anybody may watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from demo import markup, offered
from demo import wording_train as wording
from demo.desk import Desk
from demo.offered import Offered
from demo.training_settings import defaults
from demo.trainings import Rules, Trainings
from demo.uploads import MOST, MOST_BYTES, MOST_SENT

SCRIPTS = (
    "words.js",
    "aside.js",
    "storage.js",
    "keep.js",
    "play_button.js",
    "visitor.js",
    "lapse.js",
    "run_list.js",
    "upload.js",
    "train.js",
)
# What the script asks for, by the names of the desk's methods.
ASKED = (
    "look", "preview", "estimate", "start", "stop", "resume", "remove", "take", "film", "model",
)  # fmt: skip
MINUTES, CHOSEN = (2, 5, 10, 30), 5


def create(runs: Trainings, busy: Callable[[], bool] = lambda: False) -> None:
    """Lay the tab out and connect it, inside the current Blocks.

    `busy` tells whether the machine that trains draws for somebody just now.
    """
    desk = Desk(runs, busy)
    runs.uploads.clear_now_and_then()
    gr.HTML(
        value={},
        html_template=_html(runs.rules),
        js_on_load=markup.text(*SCRIPTS),
        server_functions=[_asked(desk, name) for name in ASKED],
        apply_default_css=False,
        elem_id="training",
        show_label=False,
    )


def _asked(desk: Desk, name: str) -> Callable[[Any], dict]:
    # Gradio calls it by its name and marks it; a method of an object cannot be marked.
    def ask(wish: Any) -> dict:
        return desk.answer(getattr(desk, name), wish)

    ask.__name__ = name
    return ask


def _html(rules: Rules) -> str:
    minutes = [number for number in MINUTES if number <= rules.most_minutes]
    return markup.template(
        "train",
        wording.TRAIN,
        styles="".join(_style(style, is_first=not i) for i, style in enumerate(offered.first())),
        others="".join(
            f'<option value="{style.name}">{style.title} ({style.credit})</option>'
            for style in offered.others()
        ),
        minute_choices="".join(
            _choice("minutes", str(number), f"<span>{number}</span>", number == CHOSEN)
            for number in minutes
        ),
        banner=wording.forgets(rules.most_minutes, rules.most_bytes) if rules.forgets else "",
        batches=_placeholders("batch"),
        rates=_placeholders("lr"),
        most=MOST,
        too_many=wording.too_many(MOST),
        most_sent=MOST_SENT,
        too_big=wording.too_big("[name]", MOST_SENT),
        most_bytes=MOST_BYTES,
        too_much=wording.too_much(MOST_BYTES),
    )


def _placeholders(setting: str) -> str:
    """What is taken where the field is left empty, by what the run begins with."""
    taken = defaults(setting)
    told = [f'data-{begin}="{value:g}"' for begin, value in taken.items()]
    return " ".join(["", f'placeholder="{next(iter(taken.values())):g}"', *told])


def _style(style: Offered, is_first: bool) -> str:
    words = f"<span>{style.title}<small>{style.credit}</small></span>"
    return _choice("pictures", style.name, f'<img src="{style.picture}" alt="">{words}', is_first)


def _choice(group: str, value: str, shown: str, is_chosen: bool) -> str:
    checked = " checked" if is_chosen else ""
    return f'<label><input type="radio" name="{group}" value="{value}"{checked}>{shown}</label>'
