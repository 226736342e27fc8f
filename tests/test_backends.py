"""Every way to compute a network makes the same pictures, and the fastest is found once."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import randomised

from diffusion import DiffusionModel, Noise, Schedule, UNetConfig, backends, compiled, sample
from diffusion.ahead import Ahead, Drawers
from diffusion.backends import Films, Frozen, accelerated, fastest, prepare, ways
from diffusion.denoiser import PREDICTIONS, output_channels
from diffusion.engine import Engine
from diffusion.model import ready
from diffusion.pictures import to_uint8
from diffusion.recipe import Recipe, draw
from diffusion.residents import Residents
from diffusion.slots import Capacity
from diffusion.walks import Request

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "cartoonset-64"
LABELS = {"hair": ["short", "long"], "glasses": ["no", "yes", "dark"]}
WAYS = [
    "float32",
    "bfloat16",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(not compiled.version(), reason="OpenVINO is not installed"),
    ),
]
needs_openvino = pytest.mark.skipif(not compiled.version(), reason="OpenVINO is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")


@pytest.fixture
def model() -> DiffusionModel:
    unet = randomised(UNetConfig(size=16, widths=(16, 32), labels=(2, 3)))
    return DiffusionModel(ready(unet), Schedule.cosine(), labels=LABELS)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path))
    return tmp_path


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, 16, 16, generator=rng)
    time = torch.rand(count, generator=rng) * 1000
    return x, time, torch.tensor([[-1, -1], [0, 2], [1, -1]])[torch.arange(count) % 3]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("images", [1, 3, 21])
@torch.no_grad()
def test_every_way_answers_like_the_plain_network(model, way, images):
    x, time, labels = batch(images)
    compute = accelerated(replace(model, prediction="x0"), way).compute
    for asked in ((x, time), (x, time, labels), (x, time[:1].expand(images), labels)):
        plain = model.network(*asked)
        answer = compute(*asked).float()
        assert answer.shape == plain.shape
        assert (answer - plain).norm() / plain.norm() < (1e-5 if way == "float32" else 0.03)


@needs_openvino
@pytest.mark.parametrize(
    ("prediction", "T"), [*((prediction, 1000) for prediction in PREDICTIONS), ("v", 250)]
)
@torch.no_grad()
def test_openvino_answers_with_the_clean_image_whatever_the_network_predicts(prediction, T):
    config = UNetConfig(size=16, widths=(16, 32), out_channels=output_channels(prediction, 3))
    model = DiffusionModel(ready(randomised(config)), Schedule.cosine(T), prediction)
    x, t = batch(5)[0], torch.tensor([1, T // 5, T // 2, T - 1, T])
    plain, _ = model.denoiser(clip=False)(x, t)
    x0, _ = accelerated(model, "openvino").denoiser(clip=False)(x, t)
    for one, other in zip(x0, plain, strict=True):
        assert (one - other).norm() / other.norm() < 0.03


@pytest.mark.parametrize("way", WAYS)
def test_alone_the_engine_draws_what_the_plain_loop_draws(model, way):
    model, recipe = accelerated(model, way), Recipe("ddpm", 10)
    noise = Noise(range(3), model.shape)
    *_, last = sample(model.denoiser(), recipe.plan(model.schedule), noise(1000), noise)
    assert np.array_equal(draw(model, range(3), recipe), to_uint8(last.x))
    models = Residents()
    models.keep("m", model)
    engine = Engine(models, Capacity(4, 4, 100.0, 100))
    came = threading.Event()
    with engine.submit([Request("m", (0, 1, 2), recipe)]) as showing:
        showing.films[0].watch(lambda: showing.films[0].done and came.set())
        assert showing.films[0].done or came.wait(30)
        assert np.array_equal(showing.films[0].at(10).x, to_uint8(last.x))
    engine.close()


@pytest.fixture(scope="module")
def shipped() -> tuple[DiffusionModel, Recipe, np.ndarray]:
    """The shipped model, how it draws four faces, and the four of its plain network."""
    model, recipe = DiffusionModel.from_pretrained(SHIPPED), Recipe("ddim", 20)
    return model, recipe, draw(model, range(4), recipe).astype(int)


@pytest.mark.parametrize("way", WAYS)
def test_the_shipped_model_draws_the_same_faces_in_every_way(shipped, way):
    model, recipe, plain = shipped
    off = np.abs(draw(accelerated(model, way), range(4), recipe) - plain)
    assert off.mean() <= 1
    assert np.percentile(off, 99) <= 8


def test_films_are_computed_once_and_do_not_depend_on_the_company(model):
    films, asked = Films(model.network), []
    compute = model.network.films
    model.network.films = lambda *rows: asked.append(rows) or compute(*rows)
    _, time, labels = batch(4)
    together = films(time, labels)
    alone = torch.cat([films(time[i : i + 1], labels[i : i + 1]) for i in range(4)])
    assert torch.equal(together, alone)
    assert len(asked) == 4


def test_an_image_is_the_same_whoever_shares_its_level(model):
    frozen = Frozen(model.network, torch.float32)
    x, time, _ = batch(4)
    torch.testing.assert_close(frozen(x, time)[:1], frozen(x[:1], time[:1]), atol=1e-5, rtol=1e-5)


def test_the_fastest_way_is_measured_once_and_remembered(model, cache, monkeypatch):
    monkeypatch.setattr(backends, "ways", lambda model: ["float32", "bfloat16"])
    monkeypatch.setattr(backends, "trial", lambda *_: {"float32": 2.0, "bfloat16": 1.0})
    assert fastest(model) == "bfloat16"
    monkeypatch.setattr(backends, "trial", lambda *_: pytest.fail("measured again"))
    assert fastest(model) == "bfloat16"
    monkeypatch.setattr(backends, "trial", lambda *_: {"float32": 1.0, "bfloat16": 2.0})
    next(cache.rglob("*.json")).write_text("{")
    assert fastest(model) == "float32"


@pytest.mark.parametrize(("seconds", "chosen"), [(1.2, "openvino"), (1.4, "bfloat16")])
def test_a_near_tie_is_openvinos(model, cache, monkeypatch, seconds, chosen):
    measured = {"float32": 2.0, "bfloat16": 1.0, "openvino": seconds}
    monkeypatch.setattr(backends, "ways", lambda model: list(measured))
    monkeypatch.setattr(backends, "trial", lambda *_: measured)
    assert fastest(model) == chosen


def test_a_trial_times_every_way(model):
    seconds = backends.trial(model, ["float32", "bfloat16"], rounds=1)
    assert set(seconds) == {"float32", "bfloat16"}
    assert min(seconds.values()) > 0


def test_an_unknown_way_is_refused(model):
    with pytest.raises(ValueError, match="choose one of auto"):
        accelerated(model, "abacus")


def test_moving_a_model_goes_back_to_its_network(model):
    assert accelerated(model, "bfloat16").to("cpu").compute is None


def test_without_openvino_torch_computes(model, cache, monkeypatch):
    monkeypatch.setattr(compiled, "version", lambda: None)
    assert "openvino" not in ways(model)
    prepare(model, lambda model: pytest.fail("there is nothing to prepare"))
    with pytest.raises(ValueError, match="pip install openvino"):
        accelerated(model, "openvino")


@needs_openvino
def test_openvino_counts_once_the_weights_are_converted(model, cache):
    assert "openvino" not in ways(model)
    compiled.convert(model)
    assert "openvino" in ways(model)
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    assert "openvino" not in ways(model)


@needs_openvino
def test_of_the_converted_networks_the_last_few_stay(cache, monkeypatch):
    monkeypatch.setattr(compiled, "KEPT", 2)
    for seed in range(3):
        unet = ready(randomised(UNetConfig(size=16, widths=(16,)), seed))
        compiled.convert(DiffusionModel(unet, Schedule.cosine()))
    kept = {file.suffix: len(list(cache.rglob(f"*{file.suffix}"))) for file in cache.rglob("*.*")}
    assert kept == {".xml": 2, ".bin": 2}


def test_a_converted_network_that_is_in_use_on_windows_stays_whole(cache, monkeypatch):
    monkeypatch.setattr(compiled, "KEPT", 1)
    folder = compiled.cache_dir("openvino")
    for age, name in enumerate(["kept", "unused", "used"]):
        for suffix in (".xml", ".bin"):
            (folder / f"{name}{suffix}").touch()
            os.utime(folder / f"{name}{suffix}", (1000 - age, 1000 - age))
    unlink = Path.unlink

    def refuse_used(path, **how):
        if path.name == "used.bin":
            raise PermissionError(13, "The process cannot access the file")
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", refuse_used)
    compiled._forget_old()
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["kept.bin", "kept.xml", "used.bin", "used.xml"]


@needs_openvino
@pytest.mark.slow
def test_without_a_home_there_is_no_cache_and_the_error_says_where_to_name_one(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CARTOON_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="CARTOON_CACHE"):
        compiled.cache_dir("openvino")


def test_weights_are_looked_up_on_a_thread_that_ends_with_it(model, monkeypatch):
    threads = []

    def looked(_):
        threads.append(threading.current_thread())
        return True

    monkeypatch.setattr(compiled, "version", lambda: "1")
    monkeypatch.setattr(compiled, "ready", looked)
    prepare(model, lambda _: None)
    assert len(threads) == 1
    assert not threads[0].is_alive()


def test_a_conversion_apart_ends_in_a_faster_model(model, cache):
    came: list[DiffusionModel] = []
    done = threading.Event()
    prepare(model, lambda model: came.append(model) or done.set())
    assert done.wait(100)
    assert came[0].backend in ways(model)
    assert "openvino" in ways(model)


@needs_openvino
def test_a_conversion_that_fails_leaves_torch_alone(model, cache, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with caplog.at_level(logging.WARNING):
        prepare(model, lambda model: pytest.fail("nothing was prepared"))
        for thread in threading.enumerate():
            if thread.name == "prepare":
                thread.join(30)
    assert "torch computes instead" in caplog.text


@pytest.mark.parametrize("images", [1, 2, 7, 16, 37])
def test_batches_are_cut_into_powers_of_two(images):
    parts = [list(range(images))[rows] for rows in compiled.parts(images)]
    assert [row for part in parts for row in part] == list(range(images))
    assert all(len(part).bit_count() == 1 and len(part) <= compiled.LARGEST for part in parts)


@pytest.mark.parametrize("order", [(9, 5, 2), (9, 9, 2), (4, 9, 1), (5, 3)])
def test_noise_drawn_ahead_is_the_same_noise(order):
    noise = Noise([3, 2**62], (3, 4, 4))
    with Drawers() as drawers:
        ahead = Ahead(noise, (9, 5, 2), drawers)
        for level in order:
            assert torch.equal(ahead(level), noise(level))


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("way", ["float32", "bfloat16", "float16"])
@torch.no_grad()
def test_graphs_answer_like_the_plain_network(model, way):
    x, time, labels = batch(5)
    plain = model.network(x, time, labels)
    fast = accelerated(replace(model).to("cuda"), way)
    for _ in range(2):
        answer = fast.compute(x.cuda(), time.cuda(), labels.cuda()).float().cpu()
        assert (answer - plain).norm() / plain.norm() < 0.03


@pytest.mark.cuda
@needs_cuda
def test_on_a_gpu_the_default_draws_the_faces_of_the_cpu():
    recipe = Recipe("ddpm", 20)
    plain = draw(DiffusionModel.from_pretrained(SHIPPED), range(4), recipe).astype(int)
    fast = accelerated(DiffusionModel.from_pretrained(SHIPPED, "cuda"))
    off = np.abs(draw(fast, range(4), recipe) - plain)
    assert off.mean() <= 1


@needs_openvino
def test_openvino_does_not_report_to_its_makers(model, cache):
    script = (
        "import sys\n"
        "from diffusion import DiffusionModel, compiled\n"
        "compiled.convert(DiffusionModel.from_pretrained(sys.argv[1]))\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(telemetry_utils.tm.__name__)"
    )
    folder = model.save_pretrained(cache / "model")
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        cwd=SHIPPED.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_without_room_for_a_cache_the_fastest_is_measured_each_time(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(backends, "trial", lambda *_: {"float32": 1.0, "bfloat16": 2.0})
    monkeypatch.setattr(backends, "training_precision", lambda device: torch.bfloat16)
    assert accelerated(model).backend == "float32"


@needs_openvino
def test_a_damaged_conversion_leaves_torch_alone(model, cache, monkeypatch, caplog):
    compiled.convert(model).write_text("damaged")
    monkeypatch.setattr(backends, "fastest", lambda model: "openvino")
    with caplog.at_level(logging.WARNING):
        assert accelerated(model).backend != "openvino"
    assert "torch computes" in caplog.text


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_memory_that_is_kept_is_not_asked_for_again():
    script = (
        "import resource, torch\n"
        "from diffusion.device import keep_memory\n"
        "def faults():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def step():\n"
        "    [torch.ones(2**20) for _ in range(4)]\n"
        "def of_ten_steps():\n"
        "    for _ in range(5): step()\n"  # until the heap has the size that a step needs
        "    before = faults()\n"
        "    for _ in range(10): step()\n"
        "    return faults() - before\n"
        "asked = of_ten_steps()\n"
        "keep_memory()\n"
        "print(asked, of_ten_steps())"
    )
    # The usual threshold, but one that glibc does not raise by itself, as it sometimes does.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=SHIPPED.parents[1],
        env=environment,
        capture_output=True,
        check=True,
    )
    asked, kept = map(int, done.stdout.split())
    assert kept < asked / 4
