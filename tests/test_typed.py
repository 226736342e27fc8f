"""Whoever installs the library gets its type hints."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_package_brings_the_mark_that_says_it_has_type_hints():
    assert (ROOT / "diffusion" / "py.typed").is_file()
    packed = '[tool.setuptools.package-data]\ndiffusion = ["py.typed"]\n'
    assert packed in (ROOT / "pyproject.toml").read_text()
