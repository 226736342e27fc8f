"""What the screens are made of: the scripts, templates and pictures in `demo/assets`."""

from __future__ import annotations

import html
import json
from pathlib import Path
from string import Template

ASSETS = Path(__file__).parent / "assets"


def text(*names: str) -> str:
    """The content of these assets, one after the other."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def script(name: str, **values: object) -> str:
    """The script NAME.js, with each of these values where it has "[its name]"."""
    filled = text(f"{name}.js")
    for place, value in values.items():
        filled = filled.replace(f'"[{place}]"', json.dumps(value))
    return filled


def template(name: str, *words: dict[str, str], **more: object) -> str:
    """The template NAME.html with these words in it; raises KeyError when one is missing."""
    known = {key: value for some in words for key, value in some.items()}
    return Template(text(f"{name}.html")).substitute(known, **more)


def shown(words: str) -> str:
    """Words as HTML in a template that Gradio compiles: nothing in them is code."""
    return html.escape(words).translate({ord(sign): f"&#{ord(sign)};" for sign in "`${}\\"})
