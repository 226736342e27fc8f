"""Results as files: the page is written from the JSON alone."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stand_ins
from matplotlib.figure import Figure
from stand_ins import measured
from typer.testing import CliRunner

from diffusion import plots, results
from diffusion.cli import app

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def two():
    """Two models with two rows each."""
    about = {"training": {"images": 8}}
    value = stand_ins.results(
        measured("ddim", 10, 9.0, model="first"),
        measured("ddim", 20, 8.0, model="first"),
        measured("ddim", 10, 7.0, model="second"),
        measured("ddim", 20, 7.5, model="second"),
        models={
            "first": {"weights": "aaaaaaaaaaaa", **about},
            "second": {"weights": "bbbbbbbbbbbb", **about},
        },
    )
    for row in value["rows"].values():
        row["distances"]["haar"]["frechet"] /= 1000  # reports show those of wavelets ×1000
    return value


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
    assert first.startswith("(first)\n\n- FD falls as S grows, for DDIM η 0: holds (S = 10, 20).")
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


def test_commands_that_measure_into_one_file_keep_each_others_rows(tmp_path):
    path, shared = tmp_path / "results.json", {"data": "faces.zip"}
    one, other = (results.Results(path, shared) for _ in range(2))
    about = {"weights": "aaaaaaaaaaaa"}
    one.add_floor({"copies": 0.0})
    one.add("ddim-50", {"model": "first"}, about)
    other.add("ddpm-50", {"model": "second"}, about)
    one.add("ddim-100", {"model": "first"}, about)
    value = results.read(path)
    assert value["rows"].keys() == {"ddim-50", "ddpm-50", "ddim-100"}
    assert value["models"].keys() == {"first", "second"}
    assert value["floor"] == {"copies": 0.0}
    assert "ddpm-50" in one
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_rows_that_are_added_at_the_same_moment_are_all_kept(tmp_path):
    path = tmp_path / "results.json"

    def measure(process):
        file = results.Results(path, {"data": "faces.zip"})
        for row in range(10):
            file.add(f"{process}-{row}", {"model": "faces"}, {"weights": "aaaaaaaaaaaa"})

    with ThreadPoolExecutor(4) as processes:
        list(processes.map(measure, range(4)))
    assert len(results.read(path)["rows"]) == 40


def test_a_row_is_not_added_to_a_file_that_another_measurement_began_meanwhile(tmp_path):
    path = tmp_path / "results.json"
    late = results.Results(path, {"data": "faces.zip", "count": 8})
    results.Results(path, {"data": "faces.zip", "count": 9}).add("a", {"model": "m"}, {})
    before = path.read_text()
    with pytest.raises(ValueError, match="was measured with count 9, not 8; choose another --out"):
        late.add("b", {"model": "m"}, {})
    again = results.Results(path, {"data": "faces.zip", "count": 9})
    with pytest.raises(ValueError, match="has rows of other weights of m; choose another --out"):
        again.add("b", {"model": "m"}, {"weights": "bbbbbbbbbbbb"})
    assert path.read_text() == before


def test_what_asking_for_attributes_adds_is_agreed_on_once_it_is_there(tmp_path):
    path, plain = tmp_path / "results.json", {"data": "faces.zip"}
    results.Results(path, plain).add("a", {"model": "m"}, {})
    asked = plain | {"reader": {"accuracy": {"skin": 0.9}}, "chance": {"skin": 0.1}}
    results.Results(path, asked).add("b", {"model": "m"}, {})
    value = results.read(path)
    assert {name: value[name] for name in asked} == asked
    assert value["rows"].keys() == {"a", "b"}
    results.Results(path, plain).add("c", {"model": "m"}, {})
    for other, said in (
        ({"reader": {"accuracy": {"skin": 0.8}}}, "with another reader of attributes"),
        ({"chance": {"skin": 0.2}}, "with other labels of the pictures"),
    ):
        with pytest.raises(ValueError, match=f"was measured {said}; choose another --out"):
            results.Results(path, asked | other)


def test_rows_of_a_model_whose_schedule_or_prediction_changed_are_not_mixed(tmp_path):
    path, about = tmp_path / "results.json", {"schedule": {"kind": "cosine"}, "prediction": "v"}
    file = results.Results(path, {})
    file.add("a", {"model": "m"}, about)
    for part, other in (("schedule", {"kind": "linear"}), ("prediction", "eps")):
        said = f"has rows of m with another {part}; choose another --out"
        with pytest.raises(ValueError, match=said):
            file.add("b", {"model": "m"}, about | {part: other})
    file.add("c", {"model": "older"}, {})  # as files are that did not tell these
    file.add("d", {"model": "older"}, about)
    assert results.read(path)["rows"].keys() == {"a", "c", "d"}


@pytest.mark.parametrize("part", ["models", "rows", "extractors", "machine"])
def test_a_report_of_a_file_that_lacks_a_part_is_refused_in_one_sentence(two, tmp_path, part):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({key: value for key, value in two.items() if key != part}))
    done = CliRunner().invoke(app, ["report", str(path)])
    assert done.exit_code == 1
    assert "holds no results of this version (no" in done.stderr
    assert part in done.stderr


def test_without_matplotlib_a_report_says_so_before_it_writes_anything(two, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(two))
    done = CliRunner().invoke(app, ["report", str(path)])
    assert done.exit_code == 1
    assert "plots are drawn with matplotlib; pip install matplotlib first" in done.stderr
    assert not path.with_suffix(".md").exists()


def test_a_single_row_at_random_says_nothing_about_the_shape_of_a_table(two):
    assert "The shape of DDIM's Table 1" in results.markdown(two, "results.png")
    key, row = next(iter(two["rows"].items()))
    two["rows"] = {key: row}
    assert "The shape of DDIM's Table 1" not in results.markdown(two, "results.png")


def test_a_report_of_nothing_is_refused_in_one_sentence(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path / "none.json")])
    assert done.exit_code == 1
    assert "holds no results of this version" in done.stderr


@pytest.mark.parametrize("name", ["results", "unseen", "guidance", "toons"])
def test_the_page_of_measured_quality_is_the_one_that_its_json_gives(name):
    path = DOCS / f"{name}.json"
    assert path.with_suffix(".md").read_text() == results.markdown(
        results.read(path), f"{name}.png"
    )


def test_the_page_of_recipes_says_how_many_pictures_its_rows_are_of():
    measured = results.read(DOCS / "recipe.json")
    said = (
        f"<!-- table -->\n{measured['count']:,} pictures per row, as many real ones in the last:\n"
    )
    assert said in (DOCS / "recipe.md").read_text()


def test_a_row_that_was_interrupted_tells_no_seconds(two):
    row = next(iter(two["rows"].values()))
    del row["seconds"]
    line = next(line for line in results.table(two).splitlines() if line.startswith("| first"))
    cells = [cell.strip() for cell in line.split("|")]
    header = [cell.strip() for cell in results.table(two).splitlines()[0].split("|")]
    assert cells[header.index("s")] == ""
    assert "where nothing interrupted it" in results.conditions(two)


def test_the_conditions_say_which_pictures_precision_and_recall_saw(two):
    told = "Precision and recall see only {} 1,000 pictures of the reference."
    assert told.format("the first") in results.conditions(two)
    random = two | {"precision_recall": "against a random part of the reference"}
    assert told.format("a random") in results.conditions(random)
    fewer = random | {"reference": 40}
    assert "see only a random 40 pictures of those drawn." in results.conditions(fewer)
    assert "see only" not in results.conditions(two | {"reference": 1000})


def test_what_chance_shows_is_told_where_unasked_pictures_were_read():
    unasked, guided = measured("ddim", 10, 9.0), measured("ddim", 10, 8.0) | {"guidance": 2.0}
    read = {"fidelity": {"skin": 0.1}}
    told = "At w = 0 nothing is asked"
    assert told in results.conditions(stand_ins.results(unasked | read, guided | read))
    assert told not in results.conditions(stand_ins.results(unasked, guided | read))


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


def test_distances_of_wavelets_are_shown_on_one_scale_wherever_they_stand(two):
    told = {"frechet": 0.0244, "kid": 2.86e-5, "kid_error": 1.08e-5}
    row = two["rows"]["0"]
    row["distances"]["haar"] |= told
    page = results.markdown(two, "results.png")
    assert "(squared Fréchet distance, ×1000), KID," in page
    assert "KID is ×10⁶," in page
    assert "| 24.4 | 28.6 ± 10.8 |" in page
    assert "at S = 10 only 7.0." in page  # as in the table, among the findings
    left, right = Figure().subplots(1, 2)
    plots._against_calls(two, left, right)
    assert left.lines[0].get_ydata() == pytest.approx([24.4, 8.0])
    assert right.lines[0].get_ydata()[0] == pytest.approx(28.6)
    assert (left.get_ylabel(), right.get_ylabel()) == ("FD (haar), ×1000", "KID × 10⁶")


def test_every_further_distance_is_explained_under_its_columns_name(two):
    for row in (*two["rows"].values(), two["floor"]):
        row["distances"] |= dict.fromkeys(("inception", "lite0"), row["distances"]["haar"])
    page = results.markdown(two | {"extractors": ["lite0", "inception", "haar"]}, "results.png")
    assert (
        " FD inception is the distance on inception features. W-FD is the distance on haar "
        "features, ×1000. "
    ) in page
    assert "| recall | FD inception | W-FD |" in page
