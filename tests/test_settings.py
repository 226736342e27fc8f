"""Reading the form: every field is checked, every refusal says what to choose."""

import re

import pytest

from demo.settings import DEFAULTS, Comparison, read_comparison
from diffusion.noise import MAX_SEED, check_seed
from diffusion.recipe import Recipe


def read(T=1000, **changed):
    return read_comparison(T, **{**DEFAULTS, **changed})


def test_the_defaults_are_ddpm_100_and_ddim_20_on_seed_7():
    comparison = read()
    assert list(comparison.seeds) == [7, 8, 9, 10]
    assert comparison.recipes == (Recipe("ddpm", 100), Recipe("ddim", 20, eta=0.0))


@pytest.mark.parametrize("eta", ["0.5", "0,5", " .5 ", 0.5])
def test_eta_is_read_as_people_write_it(eta):
    assert read(right_eta=eta).recipes[1].eta == 0.5


def test_an_eta_near_zero_finds_its_way_through_an_address():
    comparison = read(right_eta="1e-5")
    assert read(**comparison.fields()) == comparison


def test_numbers_are_read_from_text_and_from_json():
    comparison = read(seed=12, faces="16", left_steps=3.0, right_steps=" 4 ")
    assert (comparison.seed, comparison.faces) == (12, 16)
    assert [recipe.steps for recipe in comparison.recipes] == [3, 4]


def test_every_face_of_the_largest_seed_has_a_seed():
    seed = MAX_SEED - 16
    for one in read(seed=str(seed), faces=16).seeds:
        check_seed(one)
    with pytest.raises(ValueError, match=f"choose a whole number from 0 to {seed}"):
        read(seed=str(seed + 1))


@pytest.mark.parametrize("seed", ["abc", "", "-1", "1e3", "٣", "1_000", "0x10", None, True, [], {}])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match=r"^Seed is .*; choose a whole number from 0 to \d+\.$"):
        read(seed=seed)


@pytest.mark.parametrize("steps", ["0", "1001", "-5", "2.5", "many", 10**30, float("nan")])
@pytest.mark.parametrize("name", ["left_steps", "right_steps"])
def test_steps_outside_the_schedule_are_refused(name, steps):
    label = {"left_steps": "DDPM", "right_steps": "DDIM"}[name]
    with pytest.raises(
        ValueError, match=f"^{label} steps is .*; choose a whole number from 1 to 1000"
    ):
        read(**{name: steps})


@pytest.mark.parametrize("eta", ["2", "-0.1", "nan", "inf", "much", "٠", "1_0e-1", None, [1]])
def test_eta_outside_0_to_1_is_refused(eta):
    with pytest.raises(
        ValueError, match=r"^η is .*; choose a number from 0 \(DDIM\) to 1 \(DDPM\)"
    ):
        read(right_eta=eta)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"left_sampler": "ddim", "left_steps": "0"}, "Left steps"),
        ({"left_sampler": "ddim", "right_steps": "0"}, "Right steps"),
        ({"left_sampler": "ddim", "left_eta": "2"}, "Left η"),
        ({"left_sampler": "ddim", "right_eta": "2"}, "Right η"),
        ({"left_sampler": "ddpm_large", "right_sampler": "ddpm", "left_steps": "0"}, "Left steps"),
        ({"left_sampler": "dpmpp_2m", "left_steps": "0"}, "DPM-Solver++ steps"),
    ],
)
def test_a_refusal_names_a_field_as_the_form_does(fields, name):
    with pytest.raises(ValueError, match=f"^{re.escape(name)} is "):
        read(**fields)


def test_a_model_may_have_as_long_a_name_as_a_folder():
    assert read(model="x" * 300).model == "x" * 255


@pytest.mark.parametrize("faces", [0, 2, 10_000, "all", None, True])
def test_other_numbers_of_faces_are_refused(faces):
    with pytest.raises(ValueError, match="faces; choose 1, 4 or 16"):
        read(faces=faces)


def test_a_refusal_never_repeats_a_novel():
    with pytest.raises(ValueError, match="Seed") as refusal:
        read(seed="x" * 10_000)
    assert len(str(refusal.value)) < 150


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("ddpm", 9),
        Recipe("ddpm", 9, variance="large", spacing="quadratic"),
        Recipe("ddim", 9, eta=0.1),
        Recipe("dpmpp_2m", 9),
    ],
)
def test_a_comparison_fills_the_form_that_reads_as_itself(recipe):
    comparison = Comparison(2**62, 16, (recipe, Recipe("ddim", 3, eta=1.0)))
    fields = comparison.fields()
    assert list(fields) == list(DEFAULTS)
    assert read_comparison(1000, **fields) == comparison


def test_wishes_fill_the_form_that_reads_as_themselves():
    labels = {"glasses": ("none", "dark"), "hair": ("red",)}
    pair = (Recipe("ddpm", 9), Recipe("ddim", 3))
    comparison = Comparison(1, 4, pair, asked=(1, -1), guidance=2.5)
    assert read_comparison(1000, labels, **comparison.fields()) == comparison


def test_crisp_pictures_fill_the_form_that_makes_both_panes_crisp():
    pair = (Recipe("ddpm", 9, finish="crisp"), Recipe("ddim", 3, finish="crisp"))
    comparison = Comparison(1, 4, pair)
    assert comparison.fields()["finish"] == "crisp"
    assert read_comparison(1000, **comparison.fields()) == comparison
    with pytest.raises(ValueError, match=r"^Finish is matt; choose nothing or crisp\.$"):
        read(finish="matt")


def test_one_pane_alone_fills_the_right_side_of_the_form():
    fields = Comparison(1, 16, (Recipe("ddim", 33),)).fields()
    assert (fields["right_steps"], fields["left_steps"]) == ("33", DEFAULTS["left_steps"])


def test_an_eta_that_no_sampler_reads_may_be_anything():
    assert read(left_eta="nonsense") == read()
    with pytest.raises(ValueError, match=r"^Left η is nonsense"):
        read(left_sampler="ddim", left_eta="nonsense")


@pytest.mark.parametrize("name", ["left_sampler", "right_sampler", "left_spacing", "right_spacing"])
@pytest.mark.parametrize("value", ["euler", None, 3, ["ddim"], {}])
def test_unknown_choices_are_refused_with_the_known_ones(name, value):
    words = name.replace("_", " ").capitalize()
    with pytest.raises(ValueError, match=f"^{words} is .*; choose .* or "):
        read(**{name: value})
