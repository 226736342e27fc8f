from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion.data import DataError
from diffusion.labels import Labels, asked, load_labels

NAMES = ("b", "a", "c")
MODEL = {"hair": ("black", "red", "bald"), "glasses": ("no", "yes")}


def table(folder: Path, text: str, values: object = None) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    if values is not None:
        (folder / "labels.json").write_text(json.dumps(values))
    return path


def test_labels_follow_the_pictures_whatever_the_order_of_the_rows(tmp_path):
    path = table(tmp_path, "name,hair,glasses\na,red,no\nb,black,yes\nc,red,yes\n")
    labels = load_labels(path, NAMES)
    assert labels.names == {"hair": ("black", "red"), "glasses": ("no", "yes")}
    assert labels.values.tolist() == [[0, 1], [1, 0], [1, 1]]


def test_indices_mean_the_values_that_the_json_lists(tmp_path):
    path = table(tmp_path, "name,hair\na,2\nb,black\n", {"hair": ["black", "red", "bald"]})
    labels = load_labels(path, NAMES)
    assert labels.names == {"hair": ("black", "red", "bald")}
    assert labels.values.tolist() == [[0], [2], [-1]]


def test_a_missing_row_and_an_empty_cell_are_not_known(tmp_path):
    path = table(tmp_path, "name,hair,glasses\na,,no\nb,red,\n")
    assert load_labels(path, NAMES).values.tolist() == [[0, -1], [-1, 0], [-1, -1]]


def test_attributes_choose_columns_and_their_order(tmp_path):
    path = table(tmp_path, "name,hair,glasses\na,red,no\nb,black,yes\n")
    labels = load_labels(path, NAMES, ["glasses"])
    assert list(labels.names) == ["glasses"]
    assert list(load_labels(path, NAMES, ["glasses", "hair"]).names) == ["glasses", "hair"]


def test_colours_of_values_become_the_palette(tmp_path):
    values = {"hair": {"black": "1e1514", "bald": None}, "skin": ["FBDBD1"], "glasses": ["no"]}
    path = table(tmp_path, "name,hair,skin,glasses\na,0,0,0\n", values)
    labels = load_labels(path, NAMES)
    assert labels.palette == {"hair": ("1e1514", None), "skin": ("fbdbd1",)}
    assert labels.names["hair"] == ("black", "bald")


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        ("picture,hair\na,red\n", None, "has no column 'name'"),
        ("name,hair\nx,red\n", None, "names none of the pictures"),
        ("name\na\n", None, "has no attribute at all"),
        ("name,hair\na,red\nb,red\na,black\n", None, "has two rows for a; leave one"),
        ("name,hair\na,3\n", {"hair": ["black", "red"]}, "has hair '3'; its values are black, red"),
        ("name,hair\na,green\n", {"hair": ["black"]}, "has hair 'green'"),
        ("name,hair\na,0\n", {"hair": 3}, "hair has no values"),
        ("name,hair\na,0\n", [1], "list each attribute's values"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, text, values, said):
    with pytest.raises(DataError, match=said) as refused:
        load_labels(table(tmp_path, text, values), NAMES)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_labels(tmp_path / "missing.csv", NAMES)
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot be read|no column"):
        load_labels(tmp_path / "picture.csv", NAMES)
    with pytest.raises(DataError, match=r"no attribute tail; it has hair"):
        load_labels(table(tmp_path, "name,hair\na,red\n"), NAMES, ["tail"])


def test_two_pictures_of_one_name_are_refused(tmp_path):
    path = table(tmp_path, "name,hair\na,red\n")
    with pytest.raises(DataError, match=r"two pictures are named a.*rename one of them"):
        load_labels(path, ("b", "a", "a"))


def test_labels_outside_their_values_are_refused():
    with pytest.raises(DataError, match="outside"):
        Labels(np.array([[2]]), {"glasses": ("no", "yes")})
    with pytest.raises(DataError, match="do not fit"):
        Labels(np.array([[0, 1]]), {"glasses": ("no", "yes")})


def test_wishes_become_indices_and_what_is_not_wished_is_any():
    assert asked(MODEL, []) == (-1, -1)
    assert asked(MODEL, ["glasses=yes"]) == (-1, 1)
    assert asked(MODEL, ["glasses=0", "hair=bald"]) == (2, 0)
    assert asked(MODEL, ["hair=any"]) == (-1, -1)
    assert asked({}, []) is None


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("hair", "write attribute=value"),
        ("tail=long", "it has hair, glasses"),
        ("hair=green", "choose any, black, red, bald, or 0 to 2"),
        ("hair=3", "cannot be '3'"),
    ],
)
def test_a_wish_that_the_model_does_not_know_is_refused(wish, said):
    with pytest.raises(ValueError, match=said):
        asked(MODEL, [wish])


def test_a_model_without_labels_says_so():
    with pytest.raises(ValueError, match="trained without labels"):
        asked({}, ["hair=red"])
