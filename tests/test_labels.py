from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion.image_files import DataError
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


@pytest.mark.parametrize(
    "text",
    [
        "Name,hair\na,red\nb,black\n",
        " name , hair\na, red\nb ,black \n",
        "name,hair\na.png,red\nB.JPG,red\nb.jpg,black\n",
        "name,hair\nfaces/a.png,red\nfaces/b.png,black\n",
        ",name,hair\n0,a,red\n1,b,black\n",
        "hair,name\nred,a\nblack,b\n,\n,\n",
        '"name","hair"\n"a","red"\n"b","black"\n"c"," "\n',
    ],
    ids=["Name", "blanks", "suffixes", "folders", "pandas", "empty rows", "blank cell"],
)
def test_usual_ways_to_write_a_table_mean_the_same(tmp_path, text):
    labels = load_labels(table(tmp_path, text), NAMES)
    assert labels.names == {"hair": ("black", "red")}
    assert labels.values.tolist() == [[0], [1], [-1]]
    assert labels.known == 2


def test_a_picture_whose_own_name_ends_like_a_files_is_found(tmp_path):
    path = table(tmp_path, "name,hair\na.png,red\na,black\n")
    assert load_labels(path, ("a.png", "a")).values.tolist() == [[1], [0]]


def test_accents_that_are_spelled_otherwise_in_a_files_name_are_the_same(tmp_path):
    path = table(tmp_path, "name,hair\nJos\u00e9,red\nZoe\u0308.png,black\n")
    assert load_labels(path, ("Jose\u0301", "Zo\u00eb")).values.tolist() == [[1], [0]]
    with pytest.raises(DataError, match="two pictures are named"):
        load_labels(path, ("Jose\u0301", "Jos\u00e9"))


def test_a_column_of_too_many_values_does_not_matter_where_others_are_chosen(tmp_path):
    path = table(tmp_path, "name,id,hair\n" + "".join(f"{i},{i},red\n" for i in range(1001)))
    assert load_labels(path, ("7",), ["hair"]).names == {"hair": ("red",)}


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
        ("picture,hair\na,red\n", None, "has no column 'name' .* picture, hair; call one of its"),
        ("", None, "has no column 'name' .* its columns are none; call"),
        ("name;hair\na;red\n", None, "its columns are name;hair; separate columns by commas"),
        ("name\thair\na\tred\n", None, "its columns are name hair; separate columns by commas"),
        ("name,hair, hair\na,red,red\n", None, "has two columns 'hair'; leave one of them out"),
        ("name,hair\na,red\n a,red\n", None, "has two rows for a; leave one"),
        ("name,hair\na.png,red\na,red\n", None, "has two rows for a; leave one"),
        ("name,hair,hat\na,red,\n", None, r"column 'hat' has 0 values; leave .* --attributes"),
        (
            "name,hair\n" + "".join(f"{i},{i}\n" for i in range(1001)),
            None,
            r"column 'hair' has 1,001 values; leave it out with --attributes",
        ),
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
