"""The chart of measured quality: what the page is told about a model's folder."""

import json

import gradio as gr
import pytest
from stand_ins import measured as row
from stand_ins import results

from demo import wording
from demo.quality import Curve, Quality, create, load
from diffusion.results import FILE

WEIGHTS = "aaaaaaaaaaaa"


@pytest.fixture
def put(tmp_path):
    """Puts results into a model's folder."""

    def put(value):
        (tmp_path / FILE).write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path

    return put


def test_every_sampler_and_setting_is_a_curve_by_calls(put):
    """Distances are those of the table: on wavelets, times 1,000."""
    folder = put(
        results(
            row("ddpm", 100, 62.0),
            row("ddpm", 10, 160.0),
            row("ddpm", 10, 560.0, variance="large"),
            row("ddim", 10, 84.0),
            row("ddim", 10, 98.0, eta=0.5),
        )
    )
    assert load(folder, WEIGHTS) == Quality(
        (
            Curve("ddim", 0.5, ((10, 98_000.0),)),
            Curve("ddim", 0.0, ((10, 84_000.0),)),
            Curve("ddpm_large", 0.0, ((10, 560_000.0),)),
            Curve("ddpm", 0.0, ((10, 160_000.0), (100, 62_000.0))),
        ),
        floor=37_000.0,
        count=1000,
        extractor="haar",
    )


def test_only_what_was_drawn_at_random_on_even_levels_is_shown(put):
    plain = row("ddim", 10, 84.0)
    others = [
        row("ddim", 20, 1.0, guidance=2.0),
        row("ddim", 20, 1.0, spacing="quadratic"),
        row("ddim", 20, 1.0, clip=False),
        row("ddim", 20, 1.0, finish="crisp"),
    ]
    assert load(put(results(plain, *others)), WEIGHTS) == load(put(results(plain)), WEIGHTS)
    assert load(put(results(*others)), WEIGHTS) is None


def test_other_weights_have_no_chart(put):
    models = {"faces": {"weights": WEIGHTS}, "others": {"weights": "ffffffffffff"}}
    folder = put(results(row("ddim", 10, 84.0), models=models))
    assert load(folder, WEIGHTS)
    assert load(folder, "ffffffffffff") is None
    assert load(folder, "") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps(results(row("ddim", 10, 84.0), format="another/1")),
        json.dumps(results(row("ddim", 10, 84.0), floor=None)),
        json.dumps(results(row("ddim", 10, 84.0), extractors=[])),
        json.dumps(results(row("unknown", 10, 84.0))),
        json.dumps(results({"model": "faces"})),
    ],
)
def test_a_file_that_is_none_has_no_chart_and_the_page_starts(put, content):
    assert load(put(content), WEIGHTS) is None


def test_a_folder_without_results_and_a_name_of_the_hub_have_no_chart(tmp_path):
    assert load(tmp_path, WEIGHTS) is None
    assert load("somebody/cartoons", WEIGHTS) is None


def test_two_samplers_on_one_line_share_a_label(put):
    same = [(10, 160.0), (100, 62.0)]
    rows = [
        *(row("ddpm", calls, distance) for calls, distance in same),
        *(row("ddim", calls, distance, eta=1.0) for calls, distance in same),
        row("ddim", 10, 84.0),
    ]
    told = load(put(results(*rows)), WEIGHTS).to_json()
    labels = {(curve["sampler"], curve["eta"]): curve["label"] for curve in told["curves"]}
    assert labels == {("ddim", 1.0): "", ("ddim", 0.0): "DDIM", ("ddpm", 0.0): "DDPM = DDIM η 1"}
    rows[0] = row("ddpm", 10, 161.0)
    told = load(put(results(*rows)), WEIGHTS).to_json()
    assert [curve["label"] for curve in told["curves"]] == ["DDIM η 1", "DDIM", "DDPM"]


def test_the_floor_is_told_with_how_it_was_measured():
    told = wording.floor(37.04, 1000, "efficientnet-lite0")
    assert told == "Real faces: 37 (N = 1,000, EfficientNet-Lite0)."
    assert wording.floor(0.1306, 40, "other") == "Real faces: 0.13 (N = 40, other)."
    assert wording.floor(5.13, 40, "haar") == "Real faces: 5.1 (N = 40, Haar wavelets, ×1000)."


def test_an_extractor_that_looks_like_code_is_only_text():
    with gr.Blocks():
        chart = create(Quality((), 37.0, 1000, "<b>${alert(1)}`\\"))
    assert "(N = 1,000, &lt;b&gt;&#36;&#123;alert(1)&#125;&#96;&#92;)" in chart.html_template
