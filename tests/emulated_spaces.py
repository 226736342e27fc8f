"""`spaces` as its scheduler behaves, without a Hub and without a GPU.

The wrapped function runs in a process forked for the call, or left over from an earlier call with
the globals of then; on a thread there, as on ZeroGPU. All it yields is pickled and taken out at
once. The scheduler can refuse, and kills a worker whose time is over. No wait is endless.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import multiprocessing
import os
import queue
import signal
import threading
import time
from dataclasses import dataclass, field

LIMIT = 30  # seconds that anything waits
fork = multiprocessing.get_context("fork")
in_worker = False
visitor = contextvars.ContextVar("visitor", default=None)  # whose quota counts


class Error(Exception):
    """Of no other kind than Exception, as gr.Error is."""


@dataclass
class Scheduler:
    """What the scheduler does next, and what it has seen."""

    reuse: bool = False  # a worker stays for the next call
    refusal: str | None = None
    kill_after: int | None = None  # results of one call
    second: float = 1.0  # how long a second is when a worker's time is measured
    find_visitor: object = visitor.get
    asked: list = field(default_factory=list)  # seconds, per call
    visitors: list = field(default_factory=list)  # per call
    workers: int = 0  # that were started
    stopped: int = 0  # calls whose generator was closed in the worker
    idle: list = field(default_factory=list)


scheduler = Scheduler()


def GPU(task=None, *, duration=60, size=None):
    if task is None:
        return functools.partial(GPU, duration=duration, size=size)

    @functools.wraps(task)
    def handler(*args):
        if in_worker:
            yield from task(*args)
            return
        seconds = duration(*args) if callable(duration) else duration
        scheduler.asked.append(seconds)
        scheduler.visitors.append(scheduler.find_visitor())
        if scheduler.refusal:
            raise Error(scheduler.refusal)
        worker = scheduler.idle.pop() if scheduler.idle else Worker(task)
        yield from worker.call(args, seconds * scheduler.second)

    return handler


def gradio_auto_wrap(task):
    return task


class Worker:
    def __init__(self, task):
        scheduler.workers += 1
        theirs, self.calls = fork.Pipe(duplex=False)
        self.results, out = fork.Pipe(duplex=False)
        self.stop = fork.RawValue("b", 0)
        ends = (self.calls, self.results)
        self.process = fork.Process(
            target=_serve, args=(task, theirs, out, self.stop, ends), daemon=True
        )
        self.process.start()
        theirs.close()
        out.close()  # so that a worker's death is an end of file here

    def call(self, args, seconds):
        self.stop.value = 0
        self.calls.send(args)
        arrived = queue.Queue()
        taking = threading.Thread(target=self._take, args=(arrived, seconds), name="taking")
        taking.start()
        try:
            while True:
                kind, value = arrived.get(timeout=LIMIT)
                if kind == "end":
                    return
                if kind == "error":
                    raise Error(value)
                yield value
        except GeneratorExit:
            self.stop.value = 1
            raise
        finally:
            taking.join(LIMIT)

    def _take(self, arrived, seconds):
        """Move results into the queue, without any backpressure."""
        end, count = time.monotonic() + seconds, 0
        while True:
            if count == scheduler.kill_after or not self.results.poll(
                max(end - time.monotonic(), 0)
            ):
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.join(LIMIT)
                arrived.put(("error", "GPU task aborted"))
                return
            try:
                kind, value = self.results.recv()
            except EOFError:
                kind, value = "error", "GPU task aborted"
            count += 1
            if kind == "end":
                scheduler.stopped += value == "stopped"
                self._dismiss()
            arrived.put((kind, value))
            if kind != "result":
                return

    def _dismiss(self):
        if scheduler.reuse:
            scheduler.idle.append(self)
        else:
            self.calls.close()
            self.process.join(LIMIT)


def _serve(task, calls, results, stop, ends):
    global in_worker
    in_worker = True
    for end in ends:  # the page's
        end.close()
    while True:
        try:
            args = calls.recv()
        except EOFError:
            return
        thread = threading.Thread(target=_iterate, args=(task, args, results, stop))
        thread.start()
        thread.join()


def _iterate(task, args, results, stop):
    with contextlib.suppress(BrokenPipeError):
        try:
            generator = task(*args)
            for value in generator:
                if stop.value:
                    generator.close()
                    results.send(("end", "stopped"))
                    return
                results.send(("result", value))
        except Exception as error:
            results.send(("error", type(error).__name__))
        else:
            results.send(("end", "done"))
