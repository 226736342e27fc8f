"""Colours and type: for Gradio, for the style sheets, and for what is drawn without them."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils import fonts

PAPER, INK, MUTED, LINE = "#FAF8F4", "#1C1B1A", "#6B6862", "#DCD8D0"
PAPER_DARK, INK_DARK, MUTED_DARK, LINE_DARK = "#141619", "#ECEAE5", "#9C9A95", "#2C3036"

# These two mean these samplers and nothing else.
SAMPLER_COLOURS = {"ddpm": "#C2410C", "ddim": "#0F766E"}
SAMPLER_COLOURS_DARK = {"ddpm": "#FB923C", "ddim": "#2DD4BF"}


def properties() -> str:
    """The colours as CSS properties --ink, --ddpm and so on, for the light scheme and the dark."""
    light = {"ink": INK, "paper": PAPER, "muted": MUTED, "line": LINE, **SAMPLER_COLOURS}
    dark = {"ink": INK_DARK, "paper": PAPER_DARK, "muted": MUTED_DARK, "line": LINE_DARK}
    return _rule(":root", light) + _rule(".dark", dark | SAMPLER_COLOURS_DARK)


def _rule(selector: str, colours: dict[str, str]) -> str:
    return f"{selector} {{{''.join(f'--{name}: {value};' for name, value in colours.items())}}}\n"


def font_file(name: str) -> Path:
    """One of the fonts that ship inside Gradio, "SourceSansPro-Bold", for drawing."""
    family = name.split("-")[0]
    fonts_folder = Path(gr.__file__).parent / "templates" / "frontend" / "static" / "fonts"
    return fonts_folder / family / f"{name}.woff2"


def theme() -> gr.themes.Base:
    """Hairlines instead of boxes, no shadows, fonts that ship with Gradio."""
    pairs = {
        "body_background_fill": (PAPER, PAPER_DARK),
        "background_fill_primary": (PAPER, PAPER_DARK),
        "background_fill_secondary": (PAPER, PAPER_DARK),
        "body_text_color": (INK, INK_DARK),
        "body_text_color_subdued": (MUTED, MUTED_DARK),
        "block_background_fill": ("transparent", "transparent"),
        "block_border_width": ("0px", "0px"),
        "block_title_text_color": (MUTED, MUTED_DARK),
        "block_label_text_color": (MUTED, MUTED_DARK),
        "border_color_primary": (LINE, LINE_DARK),
        "input_background_fill": ("transparent", "transparent"),
        "input_background_fill_focus": ("transparent", "transparent"),
        "input_border_width": ("0px", "0px"),
        "input_shadow": ("none", "none"),
        "input_shadow_focus": ("none", "none"),
        "button_primary_background_fill": (INK, INK_DARK),
        "button_primary_background_fill_hover": ("#000000", "#FFFFFF"),
        "button_primary_text_color": (PAPER, PAPER_DARK),
        "button_primary_text_color_hover": (PAPER, PAPER_DARK),
        "button_primary_border_color": (INK, INK_DARK),
        "button_primary_border_color_hover": ("#000000", "#FFFFFF"),
        "error_background_fill": (PAPER, PAPER_DARK),
    }
    values = {}
    for name, (light, dark) in pairs.items():
        values[name], values[f"{name}_dark"] = light, dark
    return gr.themes.Base(
        font=[fonts.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[fonts.LocalFont("IBM Plex Mono", weights=(400,)), "ui-monospace", "monospace"],
    ).set(**values, block_shadow="none", block_padding="0px", block_title_padding="0px")
