"""Every word of the Train tab."""

from __future__ import annotations

import math

MIN_PICTURES = 16

# The tab's HTML takes these by name; words in [brackets] are filled in by its script.
TRAIN = {
    "lede": "Watch a small model learn to draw.",
    "pictures": "Pictures",
    "own": "Your own",
    "own_told": (
        "Everybody on this page can watch the previews and download the model. The pictures"
        " themselves are shown to nobody, and go when the run does."
    ),
    "minutes": "Minutes",
    "begin": "Begin with",
    "nothing": "nothing",
    "shipped": "the shipped model",
    "train": "Train",
    "more": "Advanced",
    "size": "Size",
    "network": "Network",
    "tiny": "tiny",
    "small": "small",
    "batch": "Batch",
    "rate": "Learning rate",
    "seed": "Seed",
    "flip": "Mirror half of the pictures",
    "other": "Other cartoons",
    "choose": "Choose pictures or a .zip",
    "measuring": "Measuring this machine …",
    "uploading": "Reading [done] of [all] …",
    "sent": "[percent] percent sent",
    "still_reading": "Your pictures are still being read; press Train when they are ready.",
    "images": "images seen",
    "speed": "images/s",
    "left": "left",
    "loss": "Loss",
    "loss_hint": "Smoothed mean squared error of the prediction, logarithmic",
    "previews": "16 fixed seeds, DDIM in 20 steps, uncurated",
    "slider": "Time-lapse over all previews of the run",
    "position": "after [images] images, [time]",
    "play": "Play the time-lapse",
    "pause": "Pause",
    "stop": "Stop",
    "continue": "Continue",
    "minutes_more": "[minutes] more minutes",
    "compare": "Open in Compare",
    "model": "Download model",
    "film": "Save time-lapse",
    "delete": "Delete",
    "really": "Really delete?",
    "runs": "Runs",
    "no_runs": "No runs yet. Press Train: the first previews come within seconds.",
    "not_mine": "Somebody else's run: its owner can stop and delete it.",
    "lost": "The page cannot reach its server; it tries again.",
    "unanswered": "The server did not answer; try again.",
}

STATES = {
    "starting": "starting",
    "preparing": "getting the pictures ready",
    "running": "training",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "ended early",
    "dead": "ended unexpectedly",
}

# Why a run ended early, by what its status.json says, and what its owner can do.
REASONS = {
    "not a number": (
        "The loss was no longer a number, and lower learning rates did not help.",
        "Start another run with a smaller one, under Advanced.",
    ),
    "disk full": ("The disk is full.", "Delete a run you can do without, then Continue."),
    "time over": ("The time that it was given is over.", "Continue trains on."),
}
ENDED = "The training process has gone. Everything up to {images:,} images is kept: Continue."
ENDED_FOREIGN = "The training process has gone. Everything up to {images:,} images is kept."
NOTHING_KEPT = "The training process has gone before it saved anything; start another."
MADE_ROOM = "It made room for newer runs: its model is still here, but it cannot be continued."
GONE = "This run is not there any more."
NOT_YOURS = "Only the browser that started this run, or the operator, can do that."
NO_MODEL = "The first model is saved within seconds of the first step; try again in a moment."
NO_PICTURES = "Choose your pictures first: image files or a .zip."
STAGING_GONE = (
    "Your pictures are not here any more: they wait for an hour, or ten minutes when others need"
    " the room; choose them again."
)
READING_OTHERS = "Other pictures are being read; press Train in a minute to try again."
READING_YOURS = "Your pictures are being read."
SENT_GONE = "What you sent is not here any more; send your pictures again."
TOO_MANY_WAIT = "Many pictures wait for their training here; choose yours again in ten minutes."
TOO_MUCH_TO_READ = "These pictures take too long to read; give fewer, or smaller ones."
DISK_FULL = "The disk is full, and nothing was kept; delete a run, or give fewer pictures."
RUNS_FULL = "There are {count} runs already; delete one first."
IN_USE = "A program has a file of this run open; close it, then delete the run."
FILMS_BUSY = "Somebody else's time-lapse is being saved; try again in a few seconds."
STILL_RUNNING = "This run is going; stop it first."
BEING_MEASURED = "This machine is being measured; try again in a few seconds."
TOO_BUSY = "Other programs keep this machine busy; a training gives way to them: try again later."
SHIPPED_GONE = "There is no shipped model here to begin with; begin with nothing."


def forgets(minutes: float, most: int) -> str:
    """What becomes of runs on a Space."""
    return (
        "This Space forgets its disk when it sleeps or restarts, and a training is planned for at "
        f"most {minutes:g} minutes. Over {_megabytes(most)} MB, the oldest runs make room for the"
        " newer: first they can no longer be continued, then they go. Download what you want to"
        " keep."
    )


def drawn_by(title: str, size: int) -> str:
    """Which model draws, over the panes."""
    return f"Drawn by a model trained here: {title}, {size} px."


def estimate(speed: float, images: int, minutes: float) -> str:
    """What the probe of this machine tells."""
    return f"{_round(speed)} images/s here: about {_round(images)} images in {_minutes(minutes)}."


def milestone(images: int, title: str, measured: str, same: bool = True) -> str:
    """What is beside the picture of an earlier measured run, of the `same` style or another."""
    words = f"{title} after {_round(images)} images, in a run measured on {measured}."
    return words if same else f"Other pictures: {words}"


def busy(left: float | None) -> str:
    """Somebody's run is going."""
    if left is None:
        return "A run is going and getting ready: watch it below."
    # In tens of seconds: whoever has it read aloud hears every change.
    return f"A run is going, {_minutes(math.ceil(left / 10) / 6)} left: watch it below."


def still_noise(images: int, needed: int | None) -> str:
    """Advice, when the previews are rougher than the pictures; what is `needed` may be unknown."""
    if needed is None:
        return f"Still noise after {_round(images)} images."
    if images < needed:
        return (
            f"Still noise: {_round(images)} of about {_round(needed)} images seen that faces need."
        )
    return f"Still noise after {_round(images)} images; it clears with more minutes."


def went_back(images: int) -> str:
    """Advice, when the loss was no number."""
    return (
        f"The loss was no longer a number: the state at {images:,} images was restored and the"
        " learning rate halved."
    )


def total(count: int, used: int, most: int) -> str:
    """How many runs there are, and what they take on the disk."""
    if not count:
        return ""
    runs = "1 run" if count == 1 else f"{count:,} runs"
    return f"{runs}, {_megabytes(used)} MB of {_megabytes(most)}"


def disk_refused(used: int, most: int) -> str:
    """Why no run can be started, when all together take too much."""
    return f"The runs take {_megabytes(used)} MB of {_megabytes(most)}; delete one first."


def title(pictures: int) -> str:
    """The name of a run on somebody's own pictures."""
    return f"{pictures:,} own pictures"


def taken(pictures: int, skipped: int) -> str:
    """What was read of an upload."""
    words = f"{pictures:,} pictures are ready."
    if skipped:
        one, several = "file was no usable picture and is", "files were no usable pictures and are"
        files = one if skipped == 1 else several
        words += f" {skipped:,} {files} left out."
    return words


def too_few(pictures: int) -> str:
    """An upload that nothing can be learned from."""
    count = "One picture is" if pictures == 1 else f"{pictures} pictures are"
    return f"{count} too few to learn from; give at least {MIN_PICTURES}."


def too_many(most: int) -> str:
    """An upload with too many pictures."""
    return f"These are over {most:,} pictures; give at most {most:,}."


def not_a_picture(name: str) -> str:
    """A file that is something else than it says."""
    return f"{name} is not a picture; give PNG, JPEG, WebP, GIF or BMP files, or a .zip of them."


def too_big(name: str, most: int) -> str:
    """A file with too many bytes."""
    return f"{name} is over {_megabytes(most)} MB; give a smaller one."


def too_much(most: int) -> str:
    """Files that are too much together."""
    return f"These files are over {_megabytes(most)} MB together; give fewer, or smaller ones."


def too_large(name: str, most: int) -> str:
    """A picture with too many pixels."""
    return f"{name} is too large; give pictures of at most {most} megapixels."


def two_things(name: str) -> str:
    """A file that is a picture and an archive or a program at the same time."""
    return f"{name} is a picture with something else hidden in it; save it again as a picture."


def too_slow(name: str) -> str:
    """A picture made so that it takes hours to read."""
    return f"{name} would take too long to read; save it again as a picture."


def a_link(name: str) -> str:
    """A symbolic link in an archive."""
    return f"{name} in the .zip is a link to another file; put the picture itself there."


def locked(name: str) -> str:
    """An archive that asks for a password."""
    return f"{name} is locked with a password; make the archive without one."


def a_bomb(name: str) -> str:
    """An archive that unpacks to far more than it should."""
    return f"{name} would unpack to far too much; give at most 1 GB of pictures."


def empty(name: str) -> str:
    """An archive without pictures."""
    return f"{name} has no pictures in it; put PNG, JPEG, WebP, GIF or BMP files there."


def minutes_refused(text: object, most: float) -> str:
    """Why the minutes are refused."""
    return f"Minutes is {text!s:.40}; choose a number from 0.5 to {most:g}."


def setting_refused(name: str, text: object, choices: str) -> str:
    """Why a setting is refused."""
    return f"{name} is {text!s:.40}; choose {choices}."


def failed(error: Exception) -> str:
    """An error that nobody foresaw."""
    return f"That did not work ({type(error).__name__}); try again."


def _minutes(minutes: float) -> str:
    if minutes < 1.5:
        return f"{max(round(minutes * 60), 1)} s"
    return f"{minutes:.0f} minutes"


def _megabytes(count: int) -> str:
    return f"{round(count / 1e6):,}"


def _round(number: float) -> str:
    """Two digits that mean something."""
    if number < 10:
        return f"{number:.1f}"
    digits = max(int(math.log10(number)) - 1, 0)
    return f"{round(number / 10**digits) * 10**digits:,}"
