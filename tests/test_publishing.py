"""A run made into a model folder to share."""

import pytest
from PIL import Image

from diffusion import DiffusionModel
from diffusion.publishing import Source, publish
from diffusion.runs import Run, RunError, train_run
from diffusion.training import TrainConfig

SOURCE = Source("Dots", "Nobody", "CC0 1.0", "https://example.org/dots", "Drawn by a test.")


def test_a_run_becomes_a_model_with_sheets_and_card(tmp_path, pictures):
    run = Run(tmp_path / "run")
    run.create(str(pictures), TrainConfig(images=8, size=16, widths=(16,), batch=4, held_out=2))
    for _ in train_run(run, progress=False):
        pass
    folder = publish(run, tmp_path / "model", "Dots", SOURCE, "a test machine", "It was short.")

    model = DiffusionModel.from_pretrained(folder)
    assert model.shape == (3, 16, 16)
    assert Image.open(folder / "samples.png").size == (8 * 18 + 2,) * 2
    assert Image.open(folder / "loss.png").size[0] > 400
    assert Image.open(folder / "progress.png").size == (2 * (4 * 18 + 2), 4 * 18 + 2)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc0-1.0\n")
    for part in ("[Dots](https://example.org/dots) by Nobody", "| images seen | 8 |",
                 "Drawn by a test.\n2 of them", "a test machine", "\nIt was short.\n"):  # fmt: skip
        assert part in card


def test_a_run_without_a_model_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(RunError, match="has no model yet; let it train for a minute"):
        publish(Run(tmp_path), tmp_path / "model", "Nothing", SOURCE, "nowhere")
