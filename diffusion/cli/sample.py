"""python -m diffusion sample"""


def sample() -> None:
    """Draw."""
