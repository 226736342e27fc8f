"""A borrowed GPU: every run against a scheduler that behaves like that of Spaces.

Forking a process that has run torch's threads can hang, so each of these tests runs in a process
of its own, which has a single thread of torch. All of them are forks of one that has only imported
what they need.
"""

import asyncio
import contextlib
import faulthandler
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import emulated_spaces
import numpy as np
import pytest
import torch
from emulated_spaces import scheduler
from stand_ins import randomised

from demo import wording, zerogpu
from demo.backend import Begun, Note, RunEnded, Tick
from demo.settings import read_comparison
from demo.zerogpu import LONGEST, SHORTEST, START, Feed, Pace, ZeroGPUBackend
from diffusion import DiffusionModel, Schedule, UNet, UNetConfig
from diffusion.engine import NOT_A_NUMBER
from diffusion.film import Film, Still
from diffusion.model import ready, weights_hash
from diffusion.recipe import Recipe, draw
from diffusion.residents import Residents
from diffusion.walks import Request

ROOT = Path(__file__).parents[1]
LIMIT = 60  # seconds that a process may take


def elsewhere(test):
    """Run the test in a process of its own, which is ended with all its workers."""

    @functools.wraps(test)
    def start(tmp_path, imported):
        log = tmp_path / "log"
        imported.stdin.write(f"{test.__name__} {tmp_path} {log}\n")
        imported.stdin.flush()
        assert imported.stdout.readline() == "0\n", log.read_text()

    start.here = test
    del start.__wrapped__  # the test itself asks for less
    return start


@pytest.fixture(scope="module")
def imported():
    """A process that has imported what the tests need, and forks itself for each."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        # One thread, or NumPy's linear algebra begins with several, which a fork does not have.
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.stdin.close()


def fork_for_every_test():
    """Run each test that a line of stdin names, and print how its process ended."""
    import gradio  # noqa: F401  # takes seconds
    import gradio_client  # noqa: F401

    assert len(os.listdir("/proc/self/task")) == 1, "a fork has one thread alone"
    gc.freeze()  # what was imported is not looked through again by every fork
    for line in sys.stdin:
        process = os.fork()
        if not process:
            return run(*line.split())
        _, status = os.waitpid(process, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(name, folder, log):
    os.setsid()
    with open(log, "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    faulthandler.dump_traceback_later(LIMIT, exit=True)  # where it hangs
    globals()[name].here(Path(folder))


LABELS = {"hair": ("black", "red"), "glasses": ("no", "yes")}


def save(folder, seed=0, labels=None):
    """A random model that looks at x and t, its zero-initialised layers filled."""
    counts = tuple(map(len, (labels or {}).values()))
    network = randomised(UNetConfig(size=16, widths=(16,), labels=counts), seed, std=0.1)
    model = DiffusionModel(ready(network), Schedule.cosine(), labels=labels or {})
    model.save_pretrained(folder)
    return model


def comparison(**fields):
    given = {"seed": 3, "faces": 4, "left_steps": 7, "right_steps": 4}
    return read_comparison(1000, **{**given, **fields})


def watched(backend, asked, most=None):
    """All that a visitor sees of one run who leaves after `most` of it."""

    async def watch():
        seen = []
        async with contextlib.aclosing(backend.stream(asked)) as stream:
            async for one in stream:
                if isinstance(one, Begun):
                    continue
                seen.append(one)
                if len(seen) == most:
                    break
        return seen

    return asyncio.run(asyncio.wait_for(watch(), LIMIT))


@contextlib.contextmanager
def only_in_workers(delay=0.0):
    """The network may run where the GPU is and nowhere else; gives the number of its calls."""
    forward, calls = UNet.forward, emulated_spaces.fork.Value("i", 0)

    def guarded(self, *inputs):
        assert emulated_spaces.in_worker, "no CUDA in the page's own process"
        calls.value += 1
        time.sleep(delay)
        return forward(self, *inputs)

    UNet.forward = guarded
    yield calls
    UNet.forward = forward


def assert_drawn_by(model, asked, ticks, most=0):
    """Every tick shows what the plain loop has after so many calls, within `most` of 255."""
    for pane, recipe in enumerate(asked.recipes):
        expected = {}

        def keep(first, done, x, expected=expected):
            expected[done] = x.clone()

        last = draw(model, asked.seeds, recipe, watch=keep)
        np.testing.assert_allclose(ticks[-1].stills[pane].x.astype(int), last, atol=most)
        for tick in ticks:
            x = expected[tick.calls[pane]]
            pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
            np.testing.assert_allclose(
                tick.stills[pane].x.astype(int), pixels.numpy().astype(int), atol=most
            )


ON_THE_CPU = 8  # of 255: its own fastest way may be bfloat16


def wait_for_threads():
    """Until no thread of a run is left; fails when one stays."""
    for thread in threading.enumerate():
        if thread.name in ("zerogpu", "taking"):
            thread.join(10)
            assert not thread.is_alive(), thread.name


@elsewhere
def test_frames_from_the_gpu_are_those_of_the_plain_loop(tmp_path):
    model, asked = save(tmp_path), comparison(right_eta=0.5, finish="crisp")
    backend = ZeroGPUBackend(tmp_path)
    with only_in_workers() as calls:
        ticks = watched(backend, asked)
    assert [tick.calls for tick in ticks] == [
        (0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4), (7, 4),
    ]  # fmt: skip
    assert calls.value == 12  # one that nobody sees
    assert_drawn_by(model, asked, ticks)
    wait_for_threads()
    with only_in_workers():
        many = watched(backend, comparison(faces=1, left_steps=600, right_steps=3), most=9)
    assert [tick.calls for tick in many] == [
        (0, 0), (0, 1), (0, 2), (3, 3), (6, 3), (9, 3), (12, 3), (15, 3), (18, 3),
    ]  # fmt: skip
    wait_for_threads()
    assert scheduler.workers == 2


@elsewhere
def test_a_reused_worker_draws_with_the_weights_that_were_trained_meanwhile(tmp_path):
    old, asked = save(tmp_path), comparison()
    scheduler.reuse = True
    backend = ZeroGPUBackend(tmp_path)
    with only_in_workers():
        before = watched(backend, asked)
        new = save(tmp_path, seed=1)
        after = watched(backend, asked)
    assert scheduler.workers == 1
    assert_drawn_by(old, asked, before)
    assert_drawn_by(new, asked, after)
    assert (before[-1].stills[0].x != after[-1].stills[0].x).any()


@elsewhere
def test_other_models_borrow_a_gpu_too(tmp_path):
    save(tmp_path / "shown")
    other, asked = save(tmp_path / "other", seed=1), comparison()
    backend = ZeroGPUBackend(tmp_path / "shown").of(str(tmp_path / "other"))
    assert backend.weights == weights_hash(tmp_path / "other")
    with only_in_workers():
        ticks = watched(backend, asked)
    assert_drawn_by(other, asked, ticks)
    scheduler.refusal = "You have exceeded your ZeroGPU quota"
    note, *ticks = watched(backend, asked)
    assert note == Note(wording.CPU_INSTEAD)
    assert_drawn_by(other, asked, ticks, ON_THE_CPU)
    backend.close()
    wait_for_threads()


@elsewhere
def test_without_quota_the_run_goes_on_with_the_cpu_and_says_so(tmp_path):
    model, asked = save(tmp_path), comparison()
    scheduler.refusal = "You have exceeded your ZeroGPU quota"
    backend = ZeroGPUBackend(tmp_path)
    note, *ticks = watched(backend, asked)
    assert note == Note(wording.CPU_INSTEAD)
    assert_drawn_by(model, asked, ticks, ON_THE_CPU)
    wait_for_threads()
    scheduler.refusal = None
    with only_in_workers():  # the next visitor has quota
        ticks = watched(backend, asked)
    assert_drawn_by(model, asked, ticks)
    backend.close()
    wait_for_threads()  # the worker is given back after the last picture
    assert [thread.name for thread in threading.enumerate()] == ["MainThread"]


@elsewhere
def test_the_page_serves_everybody_while_its_cpu_is_made_ready(tmp_path):
    save(tmp_path)
    scheduler.refusal = "You have exceeded your ZeroGPU quota"
    backend = ZeroGPUBackend(tmp_path)
    accelerated = zerogpu.accelerated

    def slowly(model, backend):
        time.sleep(2)
        return accelerated(model, backend)

    zerogpu.accelerated = slowly
    assert asyncio.run(longest_pause(backend)) < 1
    backend.close()
    wait_for_threads()


async def longest_pause(backend):
    """Seconds that the page stood still, at most, while two visitors have no quota."""
    loop, pauses = asyncio.get_running_loop(), []

    async def visit(later):
        await asyncio.sleep(later)
        async for event in backend.stream(comparison()):
            if isinstance(event, Tick):
                return

    async def tick():
        while True:
            before = loop.time()
            await asyncio.sleep(0.02)
            pauses.append(loop.time() - before)

    ticking = asyncio.ensure_future(tick())
    await asyncio.wait_for(asyncio.gather(visit(0), visit(0.5)), LIMIT)
    ticking.cancel()
    return max(pauses)


@elsewhere
def test_a_gpu_that_fails_before_the_first_picture_is_replaced_by_the_cpu(tmp_path):
    model, asked = save(tmp_path), comparison()
    scheduler.kill_after = 0
    backend = ZeroGPUBackend(tmp_path)
    note, *ticks = watched(backend, asked)
    assert note == Note(wording.CPU_INSTEAD)
    assert_drawn_by(model, asked, ticks, ON_THE_CPU)
    scheduler.kill_after = None
    with only_in_workers():
        UNet.forward = broken  # as on a GPU that torch has no kernels for
        stream = watched(backend, comparison(faces=1), most=1)
    assert stream == [Note(wording.CPU_INSTEAD)]


def broken(*_):
    raise RuntimeError("no kernel image is available for execution on the device")


@elsewhere
def test_a_stopped_run_lets_the_gpu_go_within_a_few_calls_and_leaves_no_thread(tmp_path):
    save(tmp_path)
    scheduler.reuse = True
    backend = ZeroGPUBackend(tmp_path)
    with only_in_workers(delay=0.03) as calls:
        watched(backend, comparison(left_steps=250, right_steps=250), most=4)
        made = calls.value
        wait_for_threads()
        assert calls.value - made <= 20  # of 500; two would do on a machine that does nothing else
        assert scheduler.stopped == 1
        made = calls.value
        time.sleep(0.3)
        assert calls.value == made
        # The worker is fit for the next visitor, and closing the page ends his run too.
        seen = asyncio.run(closed_in_mid_run(backend))
    assert scheduler.workers == 1
    assert isinstance(seen, RunEnded)
    wait_for_threads()
    assert scheduler.stopped == 2


async def closed_in_mid_run(backend):
    stream = backend.stream(comparison(left_steps=250, right_steps=250))
    try:
        await anext(stream), await anext(stream)
        await asyncio.to_thread(backend.close)
        async for _ in stream:
            pass
    except RunEnded as ended:
        return ended


@elsewhere
def test_a_worker_that_dies_in_mid_run_ends_it_in_one_sentence(tmp_path):
    save(tmp_path)
    scheduler.kill_after = 8
    backend, seen = ZeroGPUBackend(tmp_path), []

    async def watch():
        async for tick in backend.stream(comparison(left_steps=40, right_steps=40)):
            seen.append(tick)

    with only_in_workers(delay=0.02), pytest.raises(RunEnded) as ended:
        asyncio.run(asyncio.wait_for(watch(), LIMIT))
    assert str(ended.value) == wording.GPU_LOST
    assert seen
    assert all(isinstance(tick, Begun | Tick) for tick in seen)
    wait_for_threads()


@elsewhere
def test_the_seconds_asked_for_follow_those_that_were_measured(tmp_path):
    save(tmp_path)
    backend, asked = ZeroGPUBackend(tmp_path), comparison(left_steps=100, right_steps=100)
    guessed = Pace().duration(4, 200)
    scheduler.second = 0.05
    with only_in_workers(delay=0.05):
        with pytest.raises(RunEnded):  # its time is over long before its 200 calls are made
            watched(backend, asked)
        wait_for_threads()
        assert scheduler.asked == [guessed]
        scheduler.second = 1.0
        watched(backend, asked, most=2)
        wait_for_threads()
    # 0.05 s a call, and what the machine takes beside it.
    assert START + 1.5 * 200 * 0.05 <= scheduler.asked[1] <= LONGEST
    assert scheduler.asked[1] > guessed
    with only_in_workers():
        for _ in range(2):
            watched(backend, comparison(), most=None)
    assert scheduler.asked[-1] < guessed


@elsewhere
def test_the_scheduler_finds_the_visitor_behind_the_page(tmp_path):
    from gradio.context import LocalContext
    from gradio_client import Client

    from demo.page import build, launch_options

    save(tmp_path)
    scheduler.find_visitor = lambda: LocalContext.request.get().headers["x-ip-token"]
    page = build(ZeroGPUBackend(tmp_path))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    client = Client(address, verbose=False, headers={"x-ip-token": "somebody's"})
    with only_in_workers():
        job = client.submit("3", 1, "5", "3", "0", api_name="/compare")
        messages = job.outputs() if job.result(timeout=LIMIT) else []
    page.close()
    assert messages[-1]["done"]
    asides = [message["words"] for message in messages if message["type"] == "aside"]
    assert asides == [wording.drawing(1, 3)]  # and nothing of a CPU instead
    assert scheduler.visitors == ["somebody's"]


def test_the_app_borrows_a_gpu_where_spaces_lends_one(tmp_path):
    save(tmp_path / "model")
    (tmp_path / "spaces.py").write_text(
        "import sys\n"
        "assert 'torch' not in sys.modules, 'spaces has to come before torch'\n"
        "from emulated_spaces import GPU, gradio_auto_wrap\n"
    )
    script = (
        "import app; from argparse import Namespace\n"
        f"options = Namespace(model={str(tmp_path / 'model')!r}, device='auto', backend='auto')\n"
        "print(type(app.choose_backend(options)).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "SPACES_ZERO_GPU": "true",
            "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "tests"))),
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stdout.strip() == "ZeroGPUBackend", done.stderr


@elsewhere
def test_elsewhere_nothing_of_ours_imports_spaces(tmp_path):
    import builtins

    save(tmp_path)
    importers, plain_import = set(), builtins.__import__

    def watch(name, globals=None, *rest, **more):
        if name.split(".")[0] == "spaces":  # Gradio itself tries
            importers.add((globals or {}).get("__name__", "").split(".")[0])
        return plain_import(name, globals, *rest, **more)

    del sys.modules["spaces"]
    os.environ.pop("SPACES_ZERO_GPU", None)
    builtins.__import__ = watch
    import app

    backend = app.choose_backend(Namespace(model=tmp_path, device="cpu", backend="float32"))
    assert type(backend).__name__ == "LocalBackend"
    assert importers <= {"gradio"}
    backend.close()


@elsewhere
def test_a_wish_that_the_model_does_not_know_borrows_no_gpu(tmp_path):
    save(tmp_path, labels=LABELS)
    backend = ZeroGPUBackend(tmp_path)
    for wrong in ((2, 0), (-2, 0), (0,)):
        with pytest.raises(ValueError, match="give one index for each, or -1 for any"):
            watched(backend, replace(comparison(), asked=wrong))
    assert scheduler.asked == []


def test_a_wish_is_looked_at_on_the_cpu_before_a_gpu_gets_it(tmp_path):
    model = save(tmp_path, labels=LABELS)
    request = Request("m", (1,), Recipe("ddim", 2), labels=(9, 0))
    with pytest.raises(ValueError, match="labels"):
        zerogpu._denoiser(model, request)
    where = []  # on a GPU, nobody would look at them
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionModel, "_check_labels", lambda _, given: where.append(given.device))
        zerogpu._denoiser(model, replace(request, labels=(1, 0)))
    assert where == [torch.device("cpu")]


@elsewhere
def test_a_run_with_guidance_asks_for_the_seconds_of_twice_the_images(tmp_path):
    save(tmp_path, labels=LABELS)
    backend, plain = ZeroGPUBackend(tmp_path), comparison(left_steps=300, right_steps=300)
    backend._space.pace = Pace().measured(1, 0.01)
    with only_in_workers():
        for asked in (plain, replace(plain, asked=(1, 0), guidance=2.0)):
            watched(backend, asked, most=1)
            backend._space.pace = Pace().measured(1, 0.01)
    wait_for_threads()
    assert scheduler.asked == [START + 1.5 * 600 * 0.04, START + 1.5 * 600 * 0.08]


@elsewhere
def test_a_space_is_busy_while_its_own_cpu_draws_and_only_then(tmp_path):
    save(tmp_path)
    backend = ZeroGPUBackend(tmp_path, "float32")
    busy = {Begun: [], Note: [], Tick: []}

    async def watch():
        async with contextlib.aclosing(backend.stream(comparison(left_steps=200))) as stream:
            async for event in stream:
                busy[type(event)].append(backend.busy)
                if len(busy[Tick]) == 3:
                    return

    with only_in_workers():
        asyncio.run(asyncio.wait_for(watch(), LIMIT))
    assert not any(busy[Tick])
    scheduler.refusal, busy[Tick] = "You have exceeded your ZeroGPU quota", []
    asyncio.run(asyncio.wait_for(watch(), LIMIT))
    assert busy[Note] == [False]
    assert busy[Tick] == [True] * 3
    assert not backend.busy
    assert backend._space.cpu().engine.models.get("shipped").model.backend == "float32"
    backend.close()


@elsewhere
def test_a_run_takes_as_long_as_its_calls_whose_images_are_computed_together(tmp_path):
    save(tmp_path)
    backend = ZeroGPUBackend(tmp_path)
    backend._space.pace = Pace().measured(1, 0.01).measured(4, 0.012)
    assert backend.seconds(4, 1050) == 1050 * 0.012


def test_a_first_guess_is_asked_for_before_anything_was_measured():
    assert Pace().duration(4, 120) == 12
    assert Pace().duration(16, 2000) == 68


def test_a_size_that_was_never_measured_is_bounded_by_those_that_were():
    pace = Pace().measured(1, 0.01).measured(16, 0.04)
    assert pace.call(1) == 0.01
    assert pace.call(16) == 0.04
    assert pace.call(4) == 0.04  # less than sixteen take, and than four times what one takes
    assert pace.call(2) == 0.02
    assert pace.call(32) == 0.08
    assert pace.measured(1, 0.5).call(1) == 0.04


def test_the_seconds_asked_for_stay_within_what_a_visitor_has():
    assert Pace().measured(1, 1e-6).duration(1, 2) >= SHORTEST
    assert Pace().measured(16, 9.0).duration(16, 2000) == LONGEST


def test_a_picture_that_is_not_a_number_ends_the_run_in_that_sentence(tmp_path):
    save(tmp_path)
    forward = UNet.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zerogpu, "_models", functools.cache(lambda: Residents("cpu")))
        patch.setattr(UNet, "forward", lambda *inputs: forward(*inputs) * float("nan"))
        wanted = [Request(str(tmp_path), (1, 2), Recipe("ddim", 3))]
        *_, last = zerogpu.shots(wanted)
    assert last == (0, NOT_A_NUMBER)
    films = [Film(calls=3)]
    feed = Feed(lambda: iter_shots(last), films, rows=2)
    feed.start()
    feed.join(10)
    assert films[0].problem == NOT_A_NUMBER


def test_an_end_without_the_last_picture_is_told_too():
    films = [Film(calls=2)]
    feed = Feed(
        lambda: iter_shots((0, Still(0, 1000, 0.0, np.zeros((1, 2, 2, 3), np.uint8)))),
        films,
        rows=1,
    )
    feed.start()
    feed.join(10)
    assert films[0].problem == wording.GPU_LOST
    assert feed.begun


def iter_shots(*shots):
    yield from shots


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.modules["spaces"] = emulated_spaces
    fork_for_every_test()
