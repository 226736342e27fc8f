"""Numbers of forms: read as people write them, and nothing else."""

from __future__ import annotations

import pytest

from demo.numbers import read_number, read_whole

STRANGE = [
    None, True, False, "", " ", "٣", "1_0", "0x10", "nan", "inf", "one", "1 2", "1,2,3", "--1", ".",
    "e5", "1e", [1], {}, float("nan"), float("inf"), "9" * 5000, "1e999",
]  # fmt: skip


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:12])
def test_what_is_no_number_is_none(value):
    assert read_number(value) is None
    assert read_whole(value) is None


@pytest.mark.parametrize("value", [4, 4.0, "4", " 4 "])
def test_a_whole_number_is_read_from_text_and_from_json(value):
    assert read_whole(value) == 4
    assert isinstance(read_whole(value), int)


@pytest.mark.parametrize("value", ["1e2", "4.0", "+4", "-4", 4.5, "1" * 20])
def test_a_whole_number_is_written_in_digits_alone(value):
    assert read_whole(value) is None


def test_a_number_has_a_point_or_a_comma_and_perhaps_an_exponent():
    written = {"0.5": 0.5, "0,5": 0.5, " .5 ": 0.5, "5.": 5, "-1": -1, "+2": 2, "5e-4": 5e-4}
    written |= {"1E2": 100, 3: 3, 0.25: 0.25}
    assert {value: read_number(value) for value in written} == written


@pytest.mark.parametrize("number", [1e-5, 0.1, 1 / 3, 1e-300, 12345.678])
def test_a_number_is_read_back_from_all_its_digits(number):
    assert read_number(f"{number:.17g}") == number


def test_an_int_that_no_float_can_hold_is_none():
    assert read_number(10**400) is None
