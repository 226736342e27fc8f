"""What a run learns from: its pictures and their labels, wherever they are now."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusion.data import Images, is_decoded, load_images
from diffusion.labels import load_labels
from diffusion.runs import Run, RunError
from diffusion.toons import BUILT_IN, load_built_in
from diffusion.train_config import TrainConfig


def pictures_of(run: Run, progress: bool, stopped: Callable[[], bool]) -> Images:
    """What the run learns from; raises Stopped when `stopped()` before it is there."""
    data, config = run.config()
    if data in BUILT_IN:
        images = load_built_in(data, config.size, progress, bool(config.labels), stopped)
        run.check_pictures(images)
        return images
    # The place of its own pictures is stored as it was before the run, or all runs, were moved.
    # os.path: the old place may be one that this user may not look at.
    if not os.path.exists(data) and is_decoded(run.pictures):
        data = str(run.pictures)
    if run.key() and not Path(data).exists():
        raise RunError(f"there is no {data}; say with --data where the run's pictures are now")
    images = load_images(data, config.size, progress, stopped=stopped)
    run.check_pictures(images)
    return images


def run_labels(run: Run, images: Images, config: TrainConfig) -> np.ndarray | None:
    """What the run learns about its pictures, from the place that the config names."""
    if config.labels_file and not os.path.exists(config.labels_file):
        raise RunError(
            f"there is no {config.labels_file}; say with --labels where the run's labels are now"
        )
    labels = labels_of(images, config)
    run.check_labels(labels)
    return labels


def labels_of(images: Images, config: TrainConfig) -> np.ndarray | None:
    """The pictures' labels as the config names them; RunError and DataError where others are."""
    if not config.labels:
        return None
    labels = images.labels.only(list(config.labels)) if images.labels else None
    if config.labels_file:
        labels = load_labels(config.labels_file, images.names, list(config.labels))
    if labels is None or dict(labels.names) != dict(config.labels):
        raise RunError("the labels are not those that the run began with; start a new run")
    return labels.values


def relocate(run: Run, data: str = "", labels: str = "") -> None:
    """Learn from the same pictures and the same labels at other places.

    `data` is a folder or an archive, `labels` a file; "" is where they were. Raises RunError
    when they are others, or when the run does not know which pictures it had.
    """
    there, config = run.config()
    if data and (there in BUILT_IN or not run.key()):
        raise RunError(
            f"{run.folder} does not know its pictures at another place; leave --data out"
        )
    if labels and not config.labels_file:
        raise RunError(f"{run.folder} learns no labels of a file; leave --labels out")
    config = replace(config, labels_file=labels or config.labels_file)
    if data:
        images = load_images(data, config.size)
        run.check_pictures(images)
    else:
        images = pictures_of(run, progress=True, stopped=lambda: False)
    run_labels(run, images, config)
    run.note_places(data or there, config.labels_file)
