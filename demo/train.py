"""The Train tab: three choices and one button, and a training that anybody may watch."""

from __future__ import annotations

import io
import logging
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from demo import offered, trainings
from demo import wording_train as wording
from demo.estimate import BeingMeasured, Speeds, images_in, images_needed, milestone
from demo.messages import data_uri
from demo.recorded import MODEL
from demo.trainings import NICE, Refused, Rules, Trainings, about, seconds_left
from demo.uploads import MOST, MOST_BYTES, MOST_SENT, SIZE, UploadError
from diffusion.cartoons import FIRST, STYLES
from diffusion.data import DataError
from diffusion.device import pick_device, training_precision
from diffusion.film import Film
from diffusion.model import CONFIG, WEIGHTS, DiffusionModel, ModelError
from diffusion.pictures import read_settings, save_animation
from diffusion.runs import BUSY, Run, RunError, still_noise
from diffusion.train_config import FINE_TUNING, PRESETS, TrainConfig, shape_of

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("words.js", "storage.js", "keep.js", "play_button.js", "train.js")
SIZES = (32, 64)
NETWORK = "tiny"  # unless another is asked for
POINTS = 240  # of the loss line
FILM_SIDE, FILM_FPS = 512, 6
FRESH = 0.5  # seconds that an answer to everybody's polling may be old

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


def create(runs: Trainings) -> None:
    """Lay the tab out and connect it, inside the current Blocks."""
    desk = Desk(runs)

    # Gradio calls these by name; the methods of an object have none that it could mark.
    def look(wish: Any) -> dict:
        return desk.answer(desk.look, wish)

    def preview(wish: Any) -> dict:
        return desk.answer(desk.preview, wish)

    def estimate(wish: Any) -> dict:
        return desk.answer(desk.estimate, wish)

    def start(wish: Any) -> dict:
        return desk.answer(desk.start, wish)

    def stop(wish: Any) -> dict:
        return desk.answer(desk.stop, wish)

    def resume(wish: Any) -> dict:
        return desk.answer(desk.resume, wish)

    def remove(wish: Any) -> dict:
        return desk.answer(desk.remove, wish)

    def take(wish: Any) -> dict:
        return desk.answer(desk.take, wish)

    def film(wish: Any) -> dict:
        return desk.answer(desk.film, wish)

    def model(wish: Any) -> dict:
        return desk.answer(desk.model, wish)

    gr.HTML(
        value={},
        html_template=_html(runs.rules),
        js_on_load="\n".join((ASSETS / name).read_text() for name in SCRIPTS),
        server_functions=[
            *(look, preview, estimate, start, stop, resume, remove, take, film, model)
        ],
        apply_default_css=False,
        elem_id="training",
        show_label=False,
    )


class Desk:
    """Answers what the tab's script asks; each answer is bounded, and a refusal is a sentence."""

    def __init__(self, runs: Trainings):
        self.trainings = runs
        self._speeds = Speeds(NICE, runs.device)
        self._filming = threading.Lock()
        self._answers: dict[object, tuple[float, Any]] = {}

    def answer(self, function: Callable[[dict], dict], wish: object) -> dict:
        """The function's answer, or {"problem": sentence}."""
        try:
            return function(wish if isinstance(wish, dict) else {})
        except (Refused, UploadError, RunError, DataError, ModelError, ValueError) as refusal:
            return {"problem": str(refusal)}
        except Exception as error:
            log.exception("the Train tab could not answer")
            return {"problem": wording.failed(error)}

    # What everybody sees

    def look(self, wish: dict) -> dict:
        """The runs, the one that is going, and details of the one named in `run`."""
        runs = self._fresh("runs", lambda: [self._summary(run) for run in self.trainings.runs()])
        going = next((run for run in runs if run["live"]), None)
        shown = []
        for summary in runs:
            mine = self.trainings.may(Run(self.trainings.root / summary["name"]), **_keys(wish))
            shown.append({**summary, "mine": mine})
        used = sum(run["bytes"] for run in runs)
        found = {
            "runs": shown,
            "total": wording.total(len(runs), used, self.trainings.rules.most_bytes),
            "going": going and {key: going[key] for key in ("name", "percent", "left")},
        }
        if going:
            found["busy"] = wording.busy(going["left"])
        names = [run["name"] for run in runs]
        if wish.get("run") in names:
            summary = shown[names.index(wish["run"])]
            name, mine = summary["name"], summary["mine"]
            details = self._fresh(("run", name, mine), lambda: self._details(name, mine))
            found["run"] = {**details, **summary}
        return found

    def _summary(self, run: Run) -> dict:
        data, config = run.config()
        status, live = run.status(), run.alive
        state = status.get("state", "stopped")
        if state in BUSY and not live:
            state = "dead"
        records = run.metrics()
        images = records[-1]["images"] if records else status.get("images", 0)
        known = STYLES[data].title if data in STYLES else Path(data).stem
        return {
            "name": run.folder.name,
            "title": about(run).get("title") or known,
            "state": state,
            "words": wording.STATES.get(state, state),
            "live": live,
            "size": config.size,
            "images": images,
            "total": config.images,
            "percent": min(round(100 * images / config.images), 100),
            "seconds": records[-1]["seconds"] if records else 0,
            "left": seconds_left(run) if live else None,
            "speed": records[-1]["images_per_second"] if records else None,
            "bytes": run.bytes,
            "preview": max((int(path.stem) for path in run.preview_paths()), default=None),
            "model": (run.model_folder / CONFIG).is_file(),
        }

    def _details(self, name: str, mine: bool) -> dict:
        run = self.trainings.find(name)
        _, config = run.config()
        status, records = run.status(), run.metrics()
        state = status.get("state", "stopped")
        dead = state in BUSY and not run.alive
        return {
            "loss": _line(records),
            "previews": _previews(run, records),
            "lr": records[-1]["lr"] if records else None,
            "saved": _saved(run, config) if dead or state == "failed" else None,
            "problem": _problem(run, config, state, dead, mine),
            "advice": _advice(run, config),
            "complete": run.checkpoint_path.exists() and status.get("images") == config.images,
        }

    def preview(self, wish: dict) -> dict:
        """One sheet of a run, after `images` images."""
        run, images = self.trainings.find(wish.get("run")), wish.get("images")
        for path in run.preview_paths():
            if int(path.stem) == images:
                return {"uri": data_uri("image/png", path.read_bytes())}
        raise Refused(wording.GONE)

    # Before a run

    def estimate(self, wish: dict) -> dict:
        """Images per second here, the images that will be seen, and what that number gave."""
        style, config, options, minutes = self._asked(wish)
        if going := self.trainings.going():
            return {"words": wording.busy(seconds_left(going)), "busy": True}
        try:
            speed = self._speeds.get(options)
        except BeingMeasured as told:
            return {"words": str(told), "busy": True}
        images = images_in(minutes, speed)
        found: dict = {"words": wording.estimate(speed, images, minutes), "images": images}
        preset, start = wish.get("network", NETWORK), "shipped" if config.start else ""
        if known := milestone(style, config.size, images, preset, start):
            same = known.style == style
            found["picture"] = known.picture
            found["caption"] = wording.milestone(known.images, known.title, known.measured, same)
        return found

    def start(self, wish: dict) -> dict:
        """Begin a run."""
        style, config, options, minutes = self._asked(wish)
        upload = wish.get("upload")
        if style == "own" and not isinstance(upload, str):
            raise Refused(wording.NO_PICTURES)
        owner = _owner(wish)
        if going := self.trainings.going():
            raise Refused(wording.busy(seconds_left(going)))
        images = max(images_in(minutes, self._speeds.get(options, pressed=True)), config.batch)
        title = "" if style == "own" else STYLES[style].title
        data = upload if style == "own" else style
        config = TrainConfig(**{**config.to_json(), "images": images})
        run = self.trainings.start(title, data, config, owner)
        self._answers.clear()
        return {"run": run.folder.name}

    def take(self, wish: dict) -> dict:
        """Pictures that were uploaded: {"files": [{"path", "name"}, ...]}."""
        files = wish.get("files")
        files = files if isinstance(files, list) else []
        given = [entry for entry in files if isinstance(entry, dict)]
        paths = [_uploaded(entry.get("path")) for entry in given]
        upload = self.trainings.uploads.take(paths, [str(entry.get("name")) for entry in given])
        words = wording.taken(upload.pictures, upload.skipped)
        return {"upload": upload.token, "words": words}

    def _asked(self, wish: Mapping) -> tuple[str, TrainConfig, tuple[str, ...], float]:
        """(style, config, options of the probe, minutes); raises Refused."""
        style = _one_of("Pictures", wish.get("pictures"), (*STYLES, "own"))
        minutes = _number(wish.get("minutes"))
        most = self.trainings.rules.most_minutes
        if minutes is None or not 0.5 <= minutes <= most:
            raise Refused(wording.minutes_refused(wish.get("minutes"), most))
        batch = _whole("Batch", wish.get("batch"), 1, 512)
        settings: dict = {"seed": _whole("Seed", wish.get("seed"), 0, 2**31) or 0}
        if wish.get("begin") == "shipped":
            settings |= {**FINE_TUNING, "batch": 32, **_shipped(), "start": str(MODEL)}
            options = ["--from", str(MODEL)]
        else:
            preset = _one_of("Network", wish.get("network", NETWORK), ("tiny", "small"))
            given = wish.get("size", 32)
            size = _number(given) if _number(given) in SIZES else _one_of("Size", given, SIZES)
            settings |= {**PRESETS[preset], "size": int(size)}
            options = ["--preset", preset, "--size", str(int(size))]
        if batch:
            settings["batch"] = batch
            options += ["--batch", str(batch)]
        if str(wish.get("rate") or "").strip():
            rate = _number(wish["rate"])
            if rate is None or not 1e-6 <= rate <= 0.1:
                raise Refused(
                    wording.setting_refused("Learning rate", wish["rate"], "0.000001 to 0.1")
                )
            settings["lr"] = rate
        if style != "own":
            settings["pool"] = FIRST
        device = pick_device(self.trainings.device)
        config = TrainConfig(
            images=1,
            flip=wish.get("flip") is True,
            precision=str(training_precision(device)).removeprefix("torch."),
            threads=trainings.THREADS,
            **settings,
        )
        if config.size > SIZE and style == "own":
            raise Refused(wording.setting_refused("Size", config.size, f"at most {SIZE}"))
        return style, config, tuple(options), minutes

    # With a run of one's own

    def stop(self, wish: dict) -> dict:
        """Save and end."""
        self.trainings.stop(wish.get("run"), **_keys(wish))
        return {}

    def resume(self, wish: dict) -> dict:
        """Go on, where the run is finished for `minutes` more."""
        run = self.trainings.find(wish.get("run"))
        _, config = run.config()
        more, records = 0, run.metrics()
        if records and records[-1]["step"] >= config.steps:
            minutes, most = _number(wish.get("minutes")), self.trainings.rules.most_minutes
            if minutes is None or not 0.5 <= minutes <= most:
                raise Refused(wording.minutes_refused(wish.get("minutes"), most))
            speed = records[-1]["images"] / max(records[-1]["seconds"], 1)
            more = max(round(60 * minutes * speed), config.batch)
        self.trainings.resume(wish.get("run"), more=more, **_keys(wish))
        self._answers.clear()
        return {}

    def remove(self, wish: dict) -> dict:
        """Delete a run."""
        self.trainings.delete(wish.get("run"), **_keys(wish))
        self._answers.clear()
        return {}

    # What anybody may take along

    def film(self, wish: dict) -> dict:
        """The time-lapse as an MP4."""
        run = self.trainings.find(wish.get("run"))
        sheets = run.preview_paths()
        if not sheets:
            raise Refused(wording.NO_MODEL)
        chosen = [sheets[i] for i in Film(calls=len(sheets) - 1).kept_calls]
        buffer = run.folder / f".film-{threading.get_ident()}.mp4"
        with self._filming:  # packing takes a core and memory: one film at a time
            try:
                save_animation(buffer, map(_enlarged, chosen), FILM_FPS)
                content = buffer.read_bytes()
            finally:
                buffer.unlink(missing_ok=True)
        return {"name": f"{run.folder.name}.mp4", "uri": data_uri("video/mp4", content)}

    def model(self, wish: dict) -> dict:
        """The model folder as a .zip."""
        run = self.trainings.find(wish.get("run"))
        if not (run.model_folder / CONFIG).is_file():
            raise Refused(wording.NO_MODEL)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:  # weights do not compress
            for name in (CONFIG, WEIGHTS, "README.md"):
                archive.write(run.model_folder / name, f"{run.folder.name}/{name}")
        return {
            "name": f"{run.folder.name}.zip",
            "uri": data_uri("application/zip", buffer.getvalue()),
        }

    def _fresh(self, key: object, look: Callable[[], Answer]) -> Answer:
        """The same answer for all who ask within half a second."""
        when, found = self._answers.get(key, (0.0, None))
        if time.monotonic() - when > FRESH:
            found = look()
            self._answers = {
                old: answer
                for old, answer in self._answers.items()
                if time.monotonic() - answer[0] < FRESH
            }
            self._answers[key] = (time.monotonic(), found)
        return found


def _enlarged(path: Path) -> Image.Image:
    with Image.open(path) as sheet:
        scale = max(FILM_SIDE // sheet.width, 1)
        size = (sheet.width * scale, sheet.height * scale)
        return sheet.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _line(records: list[dict]) -> list[list[float]]:
    """The smoothed loss: [images, loss], at most POINTS of them."""
    smooth, points = None, []
    for record in records:
        smooth = record["loss"] if smooth is None else 0.85 * smooth + 0.15 * record["loss"]
        points.append([record["images"], round(smooth, 5)])
    stride = -(-len(points) // POINTS) or 1
    return points[::-stride][::-1]


def _previews(run: Run, records: list[dict]) -> list[list[float]]:
    """[images, seconds] of every sheet."""
    found, i = [], 0
    for images in (int(path.stem) for path in run.preview_paths()):
        while i < len(records) - 1 and records[i]["images"] < images:
            i += 1
        found.append([images, records[i]["seconds"] if records and images else 0])
    return found


def _saved(run: Run, config: TrainConfig) -> int:
    """The images that the checkpoint has seen."""
    return min(run.saved_step() * config.batch, config.images)


def _problem(run: Run, config: TrainConfig, state: str, dead: bool, mine: bool) -> str:
    if state == "failed":
        said = run.status().get("message", "").strip()
        return said[:1].upper() + said[1:].rstrip(".") + "." if said else ""
    if not dead:
        return ""
    images = _saved(run, config)
    if not images:
        return wording.NOTHING_KEPT
    # Others have no button to continue with.
    return (wording.ENDED if mine else wording.ENDED_FOREIGN).format(images=images)


def _advice(run: Run, config: TrainConfig) -> str:
    if config.halved:
        return wording.went_back(config.halved[-1] * config.batch)
    paths = run.preview_paths()
    latest = read_settings(paths[-1]) or {} if paths else {}
    rough, of_data = latest.get("roughness"), latest.get("data_roughness")
    if not latest.get("images") or rough is None or of_data is None:
        return ""
    if not still_noise(rough, of_data):
        return ""
    style, _ = run.config()
    needed = None if config.start else images_needed(style, config.size)
    return wording.still_noise(latest["images"], needed)


@cache
def _shipped() -> dict:
    try:
        return shape_of(DiffusionModel.from_pretrained(MODEL))
    except ModelError:
        raise Refused(wording.SHIPPED_GONE) from None


def _keys(wish: Mapping) -> dict[str, object]:
    """By what a browser may do something with a run."""
    return {key: wish.get(key) for key in ("owner", "operator")}


def _owner(wish: Mapping) -> str:
    owner = wish.get("owner")
    if not isinstance(owner, str) or not 16 <= len(owner) <= 200:
        raise Refused(wording.NOT_YOURS)
    return owner


def _uploaded(path: object) -> Path:
    """A file that was uploaded here; raises Refused for any other path."""
    inside, found = Path(get_upload_folder()).resolve(), Path(str(path))
    if found.is_symlink() or inside not in found.resolve().parents or not found.is_file():
        raise Refused(wording.NO_PICTURES)
    return found.resolve()


def _one_of(name: str, value: object, choices: tuple) -> Any:
    if value not in choices:
        raise Refused(wording.setting_refused(name, value, " or ".join(map(str, choices))))
    return value


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(str(value).strip().replace(",", ".")[:20])
    except ValueError:
        return None


def _whole(name: str, value: object, low: int, high: int) -> int | None:
    """A whole number, None where nothing is filled in."""
    if value is None or not str(value).strip():
        return None
    number = _number(value)
    if number is None or not number.is_integer() or not low <= number <= high:
        raise Refused(wording.setting_refused(name, value, f"a whole number from {low} to {high}"))
    return int(number)


def _html(rules: Rules) -> str:
    minutes = [m for m in (2, 5, 10, 30) if m <= rules.most_minutes]
    banner = wording.FORGETS.format(minutes=rules.most_minutes) if rules.forgets else ""
    return Template((ASSETS / "train.html").read_text()).substitute(
        wording.TRAIN,
        styles="".join(
            _choice("pictures", style.name, style.title, style.picture, style.credit)
            for style in offered.first()
        ),
        others="".join(
            f'<option value="{style.name}">{style.title} ({style.credit})</option>'
            for style in offered.others()
        ),
        minute_choices="".join(_choice("minutes", str(m), str(m)) for m in minutes),
        banner=banner,
        most=MOST,
        too_many=wording.too_many(MOST),
        most_sent=MOST_SENT,
        too_big=wording.too_big("[name]", MOST_SENT),
        most_bytes=MOST_BYTES,
        too_much=wording.too_much(MOST_BYTES),
    )


def _choice(group: str, value: str, words: str, picture: str = "", note: str = "") -> str:
    first = value in ("toon-head", "5")
    image = f'<img src="{picture}" alt="">' if picture else ""
    note = f"<small>{note}</small>" if note else ""
    return (
        f'<label><input type="radio" name="{group}" value="{value}"'
        f"{' checked' if first else ''}>{image}<span>{words}{note}</span></label>"
    )
