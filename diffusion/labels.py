"""What is known about each picture: one value per attribute, such as hair_color=black.

A labels file is a CSV whose column `name` holds the pictures' names, with their suffix or without;
every other column that has a name is an attribute. A cell holds a value's name, or its index when a
JSON file of the same name lies beside (labels.csv, labels.json); an empty cell or a missing row
means "not known". Blanks around a cell do not count.
The JSON lists each attribute's values in order: {"glasses": ["none", "clear"]}, or with colours
{"hair_color": {"black": "1e1514", "bald": null}}. Without it, values are sorted by name.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np

from diffusion.denoiser import ANY
from diffusion.image_files import DataError, is_image_name
from diffusion.palette import Palette, colours_of

MAX_FILE_BYTES = 256 * 2**20
MAX_VALUES = 1000  # of an attribute, as a UNet takes it
NAME = "name"  # the column that says which picture a row is about


@dataclass(frozen=True)
class Labels:
    """`values` int64 (N, attributes), an index per picture and attribute, -1 where not known.

    `names` has the names of each attribute's values, in the order of the indices; `palette` the
    colours of those attributes that are colours (see palette.py).
    """

    values: np.ndarray
    names: Mapping[str, tuple[str, ...]]
    palette: Palette = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = [len(names) for names in self.names.values()]
        if self.values.ndim != 2 or self.values.shape[1] != len(counts):
            raise DataError(f"labels {self.values.shape} do not fit {len(counts)} attributes")
        if len(self.values) and ((self.values < ANY) | (self.values >= counts)).any():
            raise DataError(f"labels outside their attributes' {counts} values")

    @property
    def known(self) -> int:
        """How many pictures have a value."""
        return int((self.values != ANY).any(axis=1).sum())

    def only(self, attributes: Sequence[str]) -> Labels:
        """Some of the attributes, in this order; raises DataError for one that is not there."""
        known = list(self.names)
        unknown = [name for name in attributes if name not in known]
        if unknown:
            raise DataError(f"there is no attribute {unknown[0]}; choose from {', '.join(known)}")
        columns = [known.index(name) for name in attributes]
        names = {name: self.names[name] for name in attributes}
        palette = {name: self.palette[name] for name in attributes if name in self.palette}
        return Labels(self.values[:, columns], names, palette)


def load_labels(
    path: str | Path, pictures: Sequence[str], attributes: Sequence[str] | None = None
) -> Labels:
    """The labels of the pictures with these names, from a file as the module describes it.

    `attributes` chooses columns and their order; all by default. Raises DataError, in one
    sentence, for a file that cannot be used or that knows none of the pictures, and for a name
    that two pictures or two rows have.
    """
    path = Path(path)
    # One spelling for every accent: file names on macOS keep letter and accent apart.
    pictures = [normalize("NFC", name) for name in pictures]
    columns, rows = _read(path, set(pictures))
    if (twice := _twice(pictures)) is not None:
        raise DataError(
            f"two pictures are named {twice}, and {path} cannot tell them apart; rename one of them"
        )
    attributes = columns if attributes is None else list(attributes)
    unknown = [name for name in attributes if name not in columns]
    if unknown or not attributes:
        raise DataError(
            f"{path} has no attribute {', '.join(unknown) or 'at all'}; it has {', '.join(columns)}"
        )
    known = _known_values(path.with_suffix(".json"))
    names = {
        attribute: tuple(map(str, known.get(attribute) or _sorted_values(rows, attribute)))
        for attribute in attributes
    }
    _check_counts(path, names)
    colours = {name: colours_of(known[name]) for name in attributes if name in known}
    values = np.full((len(pictures), len(attributes)), ANY, dtype=np.int64)
    found = 0
    for picture, row in zip(pictures, values, strict=True):
        if picture in rows:
            found += 1
            for column, attribute in enumerate(attributes):
                cell, by_index = rows[picture][attribute], attribute in known
                row[column] = _index(path, attribute, cell, names[attribute], by_index)
    if not found:
        raise DataError(f"{path} names none of the pictures; its column {NAME} holds their names")
    return Labels(values, names, {name: row for name, row in colours.items() if row})


def asked(labels: Mapping[str, Sequence[str]], wishes: Sequence[str]) -> tuple[int, ...] | None:
    """One index per attribute from wishes such as "hair_color=black", -1 where nothing is asked.

    `labels` are a model's; a value may also be given as its index. None when it has none and
    nothing is asked; raises ValueError for a wish that the model does not know.
    """
    chosen = dict.fromkeys(labels, ANY)
    for wish in wishes:
        attribute, equals, value = wish.partition("=")
        if not equals:
            raise ValueError(f"{wish!r} is no label; write attribute=value")
        if attribute not in labels:
            there = ", ".join(labels)
            raise ValueError(
                f"the model has no attribute {attribute!r}; "
                + (f"it has {there}" if there else "it was trained without labels")
            )
        names = list(labels[attribute])
        if value in names:
            chosen[attribute] = names.index(value)
        elif value.isdecimal() and int(value) < len(names):
            chosen[attribute] = int(value)
        elif value != "any":
            raise ValueError(
                f"{attribute} cannot be {value!r}; choose any, {', '.join(names)}, "
                f"or 0 to {len(names) - 1}"
            )
    return tuple(chosen.values()) or None


def _read(path: Path, pictures: Container[str]) -> tuple[list[str], dict[str, Mapping[str, str]]]:
    """The attributes, and the row of each picture's name."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [column.strip() for column in reader.fieldnames or []]
            name = _name_column(path, header)
            reader.fieldnames = header
            rows = [
                {column: (row[column] or "").strip() for column in header if column}
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); give a CSV file of labels") from None
    rows = [row for row in rows if row[name]]
    names = [_picture(row[name], pictures) for row in rows]
    if (twice := _twice(names)) is not None:
        raise DataError(f"{path} has two rows for {twice}; leave one of them out")
    attributes = [column for column in header if column and column != name]
    return attributes, dict(zip(names, rows, strict=True))


def _name_column(path: Path, header: Sequence[str]) -> str:
    """What the column NAME is called; raises DataError without one, or for two of one name."""
    if (twice := _twice(filter(None, header))) is not None:
        raise DataError(f"{path} has two columns {twice!r}; leave one of them out")
    name = next((column for column in header if column.lower() == NAME), None)
    if name is None:
        has = " ".join(", ".join(header).split())[:200] or "none"
        other = any(mark in column for column in header for mark in ";\t")
        advice = "separate columns by commas" if other else f"call one of its columns {NAME}"
        raise DataError(
            f"{path} has no column {NAME!r} with the pictures' names, its columns are {has}; "
            f"{advice}"
        )
    return name


def _picture(cell: str, pictures: Container[str]) -> str:
    """The picture that a row is about: pictures are known without the suffix of their files."""
    name = normalize("NFC", cell)
    return name if name in pictures or not is_image_name(name) else PurePosixPath(name).stem


def _check_counts(path: Path, names: Mapping[str, Sequence[str]]) -> None:
    for attribute, values in names.items():
        if not 1 <= len(values) <= MAX_VALUES:
            raise DataError(
                f"{path}: column {attribute!r} has {len(values):,} values; "
                "leave it out with --attributes"
            )


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes a second time."""
    counts = Counter(names)
    return next((name for name, count in counts.items() if count > 1), None)


def _known_values(path: Path) -> dict[str, Sequence[str] | Mapping[str, object]]:
    """For each attribute its values in order, or a mapping from values to colours."""
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        for attribute, values in known.items():
            if not isinstance(values, (list, dict)) or not values:
                raise ValueError(f"{attribute} has no values")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); list each attribute's values in it"
        ) from None
    return known


def _sorted_values(rows: Mapping[str, Mapping[str, str]], attribute: str) -> tuple[str, ...]:
    return tuple(sorted({row[attribute] for row in rows.values()} - {""}))


def _index(path: Path, attribute: str, cell: str, names: Sequence[str], by_index: bool) -> int:
    if not cell:
        return ANY
    if cell in names:
        return names.index(cell)
    if by_index and cell.isdecimal() and int(cell) < len(names):
        return int(cell)
    raise DataError(f"{path} has {attribute} {cell!r}; its values are {', '.join(names)}")
