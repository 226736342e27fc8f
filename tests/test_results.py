"""Results as files: the page is written from the JSON alone."""

import json
from pathlib import Path

import pytest
import stand_ins
from stand_ins import measured
from typer.testing import CliRunner

from diffusion import plots, results
from diffusion.cli import app

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def two():
    """Two models with two rows each."""
    about = {"training": {"images": 8}}
    return stand_ins.results(
        measured("ddim", 10, 9.0, model="first"),
        measured("ddim", 20, 8.0, model="first"),
        measured("ddim", 10, 7.0, model="second"),
        measured("ddim", 20, 7.5, model="second"),
        models={
            "first": {"weights": "aaaaaaaaaaaa", **about},
            "second": {"weights": "bbbbbbbbbbbb", **about},
        },
    )


def test_rows_are_found_by_the_weights_that_drew_them(two):
    found = results.of_weights(two, "bbbbbbbbbbbb")
    assert [row["model"] for row in found] == ["second", "second"]
    assert results.of_weights(two, "cccccccccccc") == []


def test_the_report_is_written_from_the_json_alone(two, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(two))
    done = CliRunner().invoke(app, ["report", str(path)])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "results.md").read_text()
    assert "](results.png)" in page
    assert (tmp_path / "results.png").stat().st_size > 5000
    # Each model is looked at apart.
    _, first, second = page.split("\n## The shape of DDIM's Table 1 ")
    assert first.startswith(
        "(first)\n\n- FD falls as S grows, for every sampler: holds (S = 10, 20)."
    )
    assert "At S = 20 DDIM η 0 has 7.5, at S = 10 only 7.0." in second


def test_crisp_pictures_are_named_so_and_kept_apart_from_what_samplers_do():
    plain = measured("ddim", 10, 9.0), measured("ddim", 20, 8.0)
    told = results.markdown(stand_ins.results(*plain), "results.png")
    crisp = measured("ddim", 20, 5.0, finish="crisp")
    page = results.markdown(stand_ins.results(*plain, crisp), "results.png")
    assert "| DDIM η 0, crisp | 20 |" in page
    assert "Crisp: after the last step" in page
    assert "Crisp" not in told
    assert page.split("## The shape")[1] == told.split("## The shape")[1]


def test_a_single_row_at_random_says_nothing_about_the_shape_of_a_table(two):
    assert "The shape of DDIM's Table 1" in results.markdown(two, "results.png")
    key, row = next(iter(two["rows"].items()))
    two["rows"] = {key: row}
    assert "The shape of DDIM's Table 1" not in results.markdown(two, "results.png")


def test_a_report_of_nothing_is_refused_in_one_sentence(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path / "none.json")])
    assert done.exit_code == 1
    assert "holds no results of this version" in done.stderr


def test_the_page_of_measured_quality_is_the_one_that_its_json_gives():
    path = DOCS / results.FILE
    if not path.is_file():
        pytest.skip(
            "nothing was measured yet: python -m diffusion evaluate ... --out docs/results.json"
        )
    assert path.with_suffix(".md").read_text() == results.markdown(
        results.read(path), "results.png"
    )


def test_a_row_that_was_interrupted_tells_no_seconds(two):
    row = next(iter(two["rows"].values()))
    del row["seconds"]
    line = next(line for line in results.table(two).splitlines() if line.startswith("| first"))
    cells = [cell.strip() for cell in line.split("|")]
    header = [cell.strip() for cell in results.table(two).splitlines()[0].split("|")]
    assert cells[header.index("s")] == ""
    assert "where nothing interrupted it" in results.conditions(two)


def test_rows_that_differ_in_guidance_are_plotted_against_it(tmp_path):
    asked = {"fidelity": {"skin": 0.9, "glasses": 0.7}}
    rows = [measured("ddim", 10, 9.0)]
    rows += [measured("ddim", 10, 8.0 + w) | {"guidance": w} | asked for w in (1.0, 2.0, 5.0)]
    rows += [rows[-1] | {"rederive": False}]
    value = stand_ins.results(*rows)
    assert "against guidance" in plots.plot_title(value)
    plots.plot(value, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
    everywhere, raw = plots._guided(value["rows"].values()).values()
    assert sorted(row["guidance"] for row in everywhere) == [0, 1, 2, 5]
    assert sorted(row["guidance"] for row in raw) == [0, 1, 5]


def test_rows_that_differ_in_steps_are_plotted_against_calls(two):
    assert "against calls" in plots.plot_title(two)
