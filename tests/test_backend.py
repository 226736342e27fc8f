"""The stream of ticks: two walks of one network, call by call."""

import numpy as np
import torch

from demo.backend import LocalBackend
from demo.settings import read_comparison
from diffusion import DiffusionModel, Schedule
from diffusion.recipe import draw


class Network(torch.nn.Module):
    """Cheap, and different for every x and time."""

    def __init__(self):
        super().__init__()
        from diffusion import UNetConfig

        self.config = UNetConfig(size=16, widths=(16,))
        self.gain = torch.nn.Parameter(torch.tensor(0.3))
        self.calls = 0

    def forward(self, x, time):
        self.calls += 1
        return torch.tanh(self.gain * x + time[:, None, None, None] / 1000)


def backend():
    return LocalBackend(DiffusionModel(Network(), Schedule.cosine()))


def comparison(**fields):
    given = {"seed": 3, "faces": 4, "ddpm_steps": 7, "ddim_steps": 4, "eta": 0}
    return read_comparison(**{**given, **fields}, T=1000)


def test_both_panes_begin_with_the_same_noise():
    first = next(backend().stream(comparison()))
    assert first.calls == (0, 0)
    np.testing.assert_array_equal(*first.pictures)


def test_each_tick_is_one_call_of_each_pane_until_it_is_done():
    ticks = list(backend().stream(comparison()))
    assert [tick.calls for tick in ticks] == [
        (0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4), (7, 4),
    ]  # fmt: skip
    assert [tick.done for tick in ticks] == [False] * 7 + [True]
    np.testing.assert_array_equal(ticks[4].pictures[1], ticks[-1].pictures[1])
    assert ticks[4].seconds[1] == ticks[-1].seconds[1] < ticks[-1].seconds[0]


def test_the_page_draws_what_the_command_line_draws():
    source, asked = backend(), comparison()
    *_, last = source.stream(asked)
    for recipe, pictures in zip(asked.recipes, last.pictures, strict=True):
        np.testing.assert_array_equal(pictures, draw(source.model, asked.seeds, recipe))


def test_ddim_with_eta_one_lands_on_ddpm():
    *_, last = backend().stream(comparison(ddpm_steps=6, ddim_steps=6, eta=1))
    np.testing.assert_array_equal(*last.pictures)


def test_a_closed_stream_calls_the_network_no_more():
    source = backend()
    stream = source.stream(comparison(ddpm_steps=500))
    for _ in range(3):
        next(stream)
    made = source.model.network.calls
    stream.close()
    assert list(stream) == []
    assert source.model.network.calls == made == 4


def test_visitors_take_turns():
    source = backend()
    slow, quick = source.stream(comparison(ddpm_steps=900)), source.stream(comparison(faces=1))
    next(slow)
    ticks = [(next(slow), tick) for tick in quick]
    assert ticks[-1][1].done
    assert ticks[-1][0].calls == (8, 4)
