"""The fixtures of the tests of the Train tab."""

import os
import shutil
import signal

import pytest
from stand_ins import CAPACITY
from train_tab import Tab, folders, put

from demo import estimate, markup, training_settings, trainings
from demo.backend import LocalBackend
from demo.page import build, launch_options
from demo.trainings import Rules, Trainings
from diffusion import DiffusionModel, Schedule
from diffusion.runs import Run
from diffusion.train_config import PRESETS

OFTEN = "const LATER = 5000;", "const LATER = 500;"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of all runs."""
    yield (root := tmp_path_factory.mktemp("runs"))
    for path in folders(root):
        if Run(path).alive:
            os.kill(Run(path).status()["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def training(network, runs, drawn_cartoons):
    """The address of a page whose trainings are very small, so that they are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", {"widths": (16, 32), "batch": 4, "lr": 1e-3})
        patch.setattr(trainings, "NICE", 0)
        patch.setattr(training_settings, "cpus", lambda: 1)
        patch.setattr(trainings, "PREVIEW_SECONDS", 2.0)
        patch.setattr(trainings, "CHECKPOINT_SECONDS", 1.0)
        patch.setattr(estimate.Speeds, "_measure", lambda self, options: 3000.0)
        # Where no run goes, a page looks only now and then whether one does: here, soon.
        written = markup.text
        assert OFTEN[0] in written("train.js")
        patch.setattr(markup, "text", lambda *names: written(*names).replace(*OFTEN))
        backend = LocalBackend(DiffusionModel(network, Schedule.cosine()), CAPACITY)
        page = build(backend, Trainings(runs, Rules()))
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        yield url
        page.close()
        backend.close()


@pytest.fixture
def tab(page, training):
    """A visitor who has never been here."""
    tab = Tab(page, training)
    yield tab
    assert tab.errors == []


@pytest.fixture
def operator(page, training, runs):
    """Whoever may do with all runs what their owners may."""
    tab = Tab(page, f"{training}?operator={(runs / '.operator').read_text()}")
    yield tab
    assert tab.errors == []


@pytest.fixture
def found(runs):
    """Two runs, the second without a preview."""
    both = [put(runs, "with", (0, 100, 200), model=True), put(runs, "without")]
    yield both
    for run in both:
        shutil.rmtree(run.folder, ignore_errors=True)
