"""What a model is asked for, as text."""

import pytest

from demo.wishes import asked_text, in_words, read_asked, read_guidance

LABELS = {
    "skin": ("fbdbd1", "603d30"),
    "hair_color": ("black", "darkbrown", "bald"),
    "glasses": ("none", "clear/tinted", "dark"),
}


@pytest.mark.parametrize("asked", [(1, 2, 0), (-1, -1, 2), (0, -1, -1)])
def test_wishes_come_back_from_their_text(asked):
    assert read_asked(LABELS, asked_text(asked)) == asked


@pytest.mark.parametrize("nothing", ["", None, " ", "-.-.-", "-", asked_text((-1, -1, -1))])
def test_nothing_asked_is_no_wish_of_any_model(nothing):
    assert read_asked(LABELS, nothing) == ()
    assert read_asked({}, nothing) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        "1",
        "1.1",
        "1.1.1.1",
        "2.-.-",
        "-2.0.0",
        "1.5.-.-",
        "a.-.-",
        "٣.-.-",
        "9" * 5000,
        [1],
        {}.keys,
    ],
    ids=lambda wrong: str(wrong)[:12],
)
def test_wishes_that_cannot_be_are_refused_in_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"^[^\n]{1,180}\.$"):
        read_asked(LABELS, wrong)


@pytest.mark.parametrize("wrong", ["0000000009.-.-", "0000000001.-.-"])
def test_a_wish_with_leading_zeros_is_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"^Skin .* cannot be asked for; choose 0 to 1, "):
        read_asked(LABELS, wrong)


def test_a_model_without_labels_takes_no_wishes():
    with pytest.raises(ValueError, match="takes no wishes"):
        read_asked({}, "1")


def test_wishes_are_told_as_people_say_them():
    assert in_words(LABELS, (1, 2, 0)) == ["skin tone 2 of 2", "bald", "no glasses"]
    assert in_words(LABELS, (-1, 1, -1)) == ["dark brown hair"]
    assert in_words(LABELS, ()) == []


def test_guidance_is_read_as_people_write_it():
    assert [read_guidance(given) for given in ("1,5", " 2 ", 0, "3.0")] == [1.5, 2, 0, 3]


@pytest.mark.parametrize("wrong", ["strong", "", None, -1, 1e9, float("nan"), [2]])
def test_a_strength_that_cannot_be_is_refused_in_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"^Guidance .* cannot be used; choose 0 to \d+\.$"):
        read_guidance(wrong)
