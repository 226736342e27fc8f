from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion import Denoiser, Schedule
from diffusion.denoiser import GATE_SHIFT, output_channels, prediction_error, target, to_x0

PREDICTIONS = ("v", "eps", "x0")
SCHEDULE = Schedule.cosine(1000)
LEVELS = torch.tensor([1, 20, 500, 900, 990])
SHAPE = (5, 3, 4, 4)


def draw(*shape: int, seed: int = 0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def truth():
    """x0 in [-1, 1], eps, their mixture x, and signal and noise, all at LEVELS."""
    x0, eps = draw(*SHAPE).clamp(-1, 1), draw(*SHAPE, seed=1)
    signal = SCHEDULE.signal[LEVELS][:, None, None, None]
    noise = SCHEDULE.noise[LEVELS][:, None, None, None]
    return x0, eps, signal * x0 + noise * eps, signal, noise


class Labelled:
    """A network of x, time and labels that remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, time, labels=None):
        self.calls.append((x, time, labels))
        shift = 0 if labels is None else torch.where(labels < 0, 0.5, labels * 2.0 + 1)[:, :1]
        flat = x.flatten(1)
        return (2 * torch.sin(flat + time[:, None] / 500) + shift).reshape(x.shape)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_of_the_truth_means_the_truth(truth, prediction):
    x0, eps, x, signal, noise = truth
    answer = target(prediction, x0, eps, signal, noise)
    denoise = Denoiser(lambda x, time: answer, SCHEDULE, prediction, clip=False)
    found = denoise(x, LEVELS)
    torch.testing.assert_close(found, (x0, eps), atol=1e-9, rtol=0)


def test_the_targets_are_those_of_the_papers(truth):
    x0, eps, _, signal, noise = truth
    assert target("eps", x0, eps, signal, noise) is eps
    assert target("x0", x0, eps, signal, noise) is x0
    torch.testing.assert_close(target("v", x0, eps, signal, noise), signal * eps - noise * x0)


def test_the_three_predictions_mean_the_same_clean_picture(truth):
    x0, eps, x, signal, noise = truth
    means = [to_x0(p, target(p, x0, eps, signal, noise), x, signal, noise) for p in PREDICTIONS]
    for mean in means:
        torch.testing.assert_close(mean, x0, atol=1e-9, rtol=0)


def dual(v, clean, gate):
    """A dual network's output, its gate given as a share from 0 to 1."""
    logit = torch.logit(torch.full_like(v[:, :1], gate)) + GATE_SHIFT
    return torch.cat([v, torch.atanh(clean), logit], dim=1)


def test_a_dual_network_with_a_closed_gate_is_a_v_network(truth):
    x0, eps, x, signal, noise = truth
    v = target("v", x0, eps, signal, noise)
    output = dual(v, torch.zeros_like(v), gate=1e-15)
    assert output.shape[1] == output_channels("dual", 3) == 7
    torch.testing.assert_close(to_x0("dual", output, x, signal, noise), x0, atol=1e-9, rtol=0)


def test_a_dual_network_with_an_open_gate_names_the_clean_picture_itself(truth):
    x0, _, x, signal, noise = truth
    output = dual(torch.full_like(x, 7.0), 0.9 * x0, gate=1 - 1e-15)
    found = to_x0("dual", output, x, signal, noise)
    torch.testing.assert_close(found, 0.9 * x0, atol=1e-9, rtol=0)


def test_half_a_gate_mixes_half_and_half(truth):
    x0, eps, x, signal, noise = truth
    v = target("v", x0, eps, signal, noise)
    mixed = to_x0("dual", dual(v, torch.zeros_like(v), gate=0.5), x, signal, noise)
    torch.testing.assert_close(mixed, 0.5 * x0)


def test_the_error_of_a_dual_network_is_the_error_of_v(truth):
    x0, eps, _, signal, noise = truth
    v = target("v", x0, eps, signal, noise) + 0.3
    error = prediction_error("dual", dual(v, 0 * v, gate=1e-15), x0, eps, signal, noise)
    expected = prediction_error("v", v, x0, eps, signal, noise)
    torch.testing.assert_close(error, -expected, atol=1e-6, rtol=0)  # x0 = signal·x - noise·v


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_pair_explains_the_picture_also_when_clipped(truth, prediction, clip):
    *_, x, signal, noise = truth
    network = Labelled()
    x0, eps = Denoiser(network, SCHEDULE, prediction, clip=clip)(2 * x, LEVELS)
    torch.testing.assert_close(signal * x0 + noise * eps, 2 * x)
    assert (x0.abs().max() <= 1) == clip


def test_a_clean_picture_is_its_own_guess_and_the_noise_is_the_one_seen_at_level_1(truth):
    x = truth[0]
    denoise = Denoiser(Labelled(), SCHEDULE, clip=False)
    x0, eps = denoise(x, torch.zeros(5, dtype=torch.int64))
    assert torch.equal(x0, x)
    torch.testing.assert_close(eps, denoise(x, torch.ones(5, dtype=torch.int64))[1])


def test_images_of_one_batch_may_be_at_different_levels(truth):
    x = truth[2]
    t = torch.tensor([0, 20, 500, 900, 0])
    denoise = Denoiser(Labelled(), SCHEDULE)
    together = denoise(x, t)
    for i in range(5):
        alone = denoise(x[i : i + 1], t[i : i + 1])
        torch.testing.assert_close(alone, tuple(tensor[i : i + 1] for tensor in together))


@pytest.mark.parametrize("T", [10, 1000, 4000])
def test_the_network_is_told_the_time_in_thousandths(T):
    network = Labelled()
    t = torch.tensor([0, 1, T // 2, T])
    Denoiser(network, Schedule.cosine(T))(draw(4, 6), t)
    expected = torch.tensor([1, 1, T // 2, T]).double() * 1000 / T
    torch.testing.assert_close(network.calls[0][1], expected)


@pytest.mark.parametrize("w", [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_guidance_mixes_the_clean_pictures(truth, w):
    x, labels = truth[2], torch.tensor([[0], [1], [2], [3], [-1]])
    network = Labelled()
    x0, _ = Denoiser(network, SCHEDULE, clip=False, labels=labels, guidance=w)(x, LEVELS)
    asked, _ = Denoiser(Labelled(), SCHEDULE, clip=False, labels=labels)(x, LEVELS)
    nothing, _ = Denoiser(Labelled(), SCHEDULE, clip=False, labels=torch.full_like(labels, -1))(
        x, LEVELS
    )
    assert (asked - nothing)[:4].abs().max() > 0.1
    torch.testing.assert_close(x0, nothing + w * (asked - nothing))
    torch.testing.assert_close(x0[4], asked[4])  # nothing was asked of the last


@pytest.mark.parametrize(("w", "rows"), [(0, 5), (0.0, 5), (1, 5), (1.0, 5), (0.5, 10), (2, 10)])
def test_guidance_costs_one_call_of_the_network_and_two_rows_only_where_it_must(truth, w, rows):
    network, labels = Labelled(), torch.tensor([[0], [1], [2], [3], [-1]])
    Denoiser(network, SCHEDULE, labels=labels, guidance=w)(truth[2], LEVELS)
    assert [len(x) for x, _, _ in network.calls] == [rows]


def test_guidance_is_applied_before_clipping(truth):
    x, labels = truth[2], torch.tensor([[0], [1], [2], [3], [-1]])
    free, _ = Denoiser(Labelled(), SCHEDULE, clip=False, labels=labels, guidance=4.0)(x, LEVELS)
    clipped, _ = Denoiser(Labelled(), SCHEDULE, labels=labels, guidance=4.0)(x, LEVELS)
    assert free.abs().max() > 1
    torch.testing.assert_close(clipped, free.clamp(-1, 1))


def test_guidance_acts_inside_of_its_interval_and_labels_outside(truth):
    x, labels = truth[2], torch.tensor([[0], [1], [2], [3], [0]])
    t = torch.tensor([299, 300, 500, 700, 701])

    def x0(**guided):
        return Denoiser(Labelled(), SCHEDULE, clip=False, labels=labels, **guided)(x, t)[0]

    some, plain, strong = x0(guidance=3.0, interval=(0.3, 0.7)), x0(), x0(guidance=3.0)
    assert (strong - plain).flatten(1).abs().amax(dim=1).min() > 0.01
    torch.testing.assert_close(some[[0, 4]], plain[[0, 4]])
    torch.testing.assert_close(some[1:4], strong[1:4])


def test_without_rederiving_the_noise_is_that_of_the_unclipped_picture(truth):
    *_, x, signal, noise = truth
    options = {"labels": torch.tensor([[0], [1], [2], [3], [0]]), "guidance": 4.0}
    free, meant = Denoiser(Labelled(), SCHEDULE, clip=False, **options)(x, LEVELS)
    x0, eps = Denoiser(Labelled(), SCHEDULE, rederive=False, **options)(x, LEVELS)
    assert free.abs().max() > 1
    torch.testing.assert_close(x0, free.clamp(-1, 1))
    torch.testing.assert_close(eps, (x - signal * free) / noise)
    torch.testing.assert_close(eps, meant)


def test_guidance_0_asks_the_network_for_any_label(truth):
    network, labels = Labelled(), torch.tensor([[0], [1], [2], [3], [-1]])
    Denoiser(network, SCHEDULE, labels=labels, guidance=0)(truth[2], LEVELS)
    assert (network.calls[0][2] == -1).all()


@pytest.mark.parametrize("shape", [(5,), (1, 1), (4, 1), (5, 1, 1)])
@pytest.mark.parametrize("w", [0.0, 1.0, 2.0])
def test_labels_without_a_row_for_each_picture_are_refused(truth, shape, w):
    network = Labelled()
    denoise = Denoiser(network, SCHEDULE, labels=torch.zeros(shape).long(), guidance=w)
    with pytest.raises(ValueError, match=r"^labels of shape \(.*\) for 5 images; give \("):
        denoise(truth[2], LEVELS)
    assert not network.calls


def test_labels_may_be_lists_and_arrays(truth):
    asked = [[0], [1], [2], [3], [-1]]
    expected = Denoiser(Labelled(), SCHEDULE, labels=torch.tensor(asked))(truth[2], LEVELS)
    for labels in (asked, np.array(asked)):
        found = Denoiser(Labelled(), SCHEDULE, labels=labels)(truth[2], LEVELS)
        torch.testing.assert_close(found, expected)


def test_some_of_a_batch_may_be_guided_and_the_others_stay_as_they_are(truth):
    x, labels = truth[2], torch.tensor([[0], [1], [2], [3], [-1]])
    some = torch.tensor([1.0, 2.0, 1.0, 3.0, 0.0])
    together, _ = Denoiser(Labelled(), SCHEDULE, labels=labels, guidance=some)(x, LEVELS)
    for i, w in enumerate(some):
        alone = Denoiser(Labelled(), SCHEDULE, labels=labels[i : i + 1], guidance=float(w))
        torch.testing.assert_close(together[i : i + 1], alone(x[i : i + 1], LEVELS[i : i + 1])[0])


def test_labels_follow_the_pictures_to_their_device(truth):
    x, network = truth[2].to("meta"), Labelled()
    labels = torch.zeros(5, 1, dtype=torch.int64)
    x0, _ = Denoiser(network, SCHEDULE, labels=labels)(x, LEVELS.to("meta"))
    assert network.calls[0][2].device == x0.device == x.device


def test_without_labels_the_network_is_called_without_them(truth):
    network = Labelled()
    Denoiser(network, SCHEDULE, guidance=5.0)(truth[2], LEVELS)
    assert network.calls[0][2] is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_answers_become_float32_before_the_algebra(truth, dtype):
    x = truth[2].float()
    half = Denoiser(lambda x, time: Labelled()(x, time).to(dtype), SCHEDULE, "eps", clip=False)
    rounded = Denoiser(
        lambda x, time: Labelled()(x, time).to(dtype).float(), SCHEDULE, "eps", clip=False
    )
    for mine, expected in zip(half(x, LEVELS), rounded(x, LEVELS), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, expected)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="unknown prediction 'score'; choose one of"):
        Denoiser(Labelled(), SCHEDULE, "score")
