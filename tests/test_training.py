from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from stand_ins import randomised

from diffusion import DiffusionModel, Schedule, UNet, UNetConfig
from diffusion.model import ready
from diffusion.pictures import from_uint8
from diffusion.train_config import TrainConfig
from diffusion.training import Trainer, loss_weight, unlabelled

TINY = TrainConfig(images=64, size=16, widths=(16, 32), batch=4, T=50)


def with_(**changes: object) -> TrainConfig:
    return dataclasses.replace(TINY, **changes)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)


def train(trainer: Trainer, pixels: np.ndarray, steps: int) -> list[float]:
    run = trainer.run(pixels, np.arange(len(pixels)))
    return [next(run).loss.item() for _ in range(steps)]


def test_without_min_snr_all_levels_weigh_the_same():
    assert torch.equal(loss_weight(Schedule.cosine(50), TINY), torch.ones(51).double())


@pytest.mark.parametrize("schedule", [Schedule.cosine(1000), Schedule.linear(1000)])
def test_min_snr_weights_are_those_of_its_paper(schedule):
    """min(SNR, γ) for x0, min(SNR, γ)/SNR for eps and min(SNR, γ)/(SNR + 1) for v."""
    snr = (schedule.alpha_bar / (1 - schedule.alpha_bar))[1:]
    least = torch.minimum(snr, torch.tensor(5.0).double())
    for prediction, expected in (
        ("x0", least),
        ("eps", least / snr),
        ("v", least / (snr + 1)),
    ):
        weight = loss_weight(schedule, with_(prediction=prediction, min_snr=5.0))
        assert weight.isfinite().all()
        torch.testing.assert_close(weight[1:], expected)


def test_the_floor_keeps_weight_on_levels_of_almost_pure_noise():
    """max(SNR, 1) for x0, truncated SNR; for v that is 1/(SNR + 1) where there is little signal."""
    schedule = Schedule.cosine(1000)
    floored = loss_weight(schedule, with_(prediction="x0", snr_floor=1.0))
    torch.testing.assert_close(floored[1:], schedule.snr[1:].clamp(min=1))
    both = loss_weight(schedule, with_(prediction="v", snr_floor=0.1, min_snr=5.0))
    capped = loss_weight(schedule, with_(prediction="v", min_snr=5.0))
    little = schedule.snr < 0.1
    torch.testing.assert_close(both[little], 0.1 / (schedule.snr[little] + 1))
    assert torch.equal(both[~little], capped[~little])


def test_the_same_error_of_the_clean_picture_costs_the_same_whatever_is_predicted(pixels):
    """The three min-SNR losses measure one thing: an error of x0, weighted by min(SNR, γ)."""
    batch = Trainer(TINY).batch(pixels, np.arange(10), 0)
    wrong = batch.x0 + 0.1 * torch.randn_like(batch.x0)
    losses = []
    for prediction in ("x0", "eps", "v"):
        trainer = Trainer(with_(prediction=prediction, min_snr=5.0))
        signal = trainer.schedule.signal[batch.t].float()[:, None, None, None]
        noise = trainer.schedule.noise[batch.t].float()[:, None, None, None]
        x = signal * batch.x0 + noise * batch.eps
        eps = (x - signal * wrong) / noise
        answer = {"x0": wrong, "eps": eps, "v": signal * eps - noise * wrong}[prediction]
        trainer.network = lambda x, time, answer=answer: answer
        losses.append(trainer.loss(batch).item())
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-3)


def test_a_perfect_answer_costs_nothing_and_a_zero_one_the_targets_size(pixels):
    trainer = Trainer(with_(prediction="eps"))
    batch = trainer.batch(pixels, np.arange(10), 0)
    assert trainer.loss(batch).item() == pytest.approx(batch.eps.square().mean().item(), rel=1e-5)
    trainer.network = lambda x, time: batch.eps
    assert trainer.loss(batch).item() == 0


def test_the_network_is_trained_on_what_the_denoiser_will_ask(pixels):
    trainer = Trainer(TINY)
    batch = trainer.batch(pixels, np.arange(10), 3)
    seen = []

    def network(x, time):
        seen.append((x, time))
        return torch.zeros_like(x)

    trainer.network = network
    trainer.loss(batch)
    signal = trainer.schedule.signal.float()[batch.t][:, None, None, None]
    noise = trainer.schedule.noise.float()[batch.t][:, None, None, None]
    torch.testing.assert_close(seen[0][0], signal * batch.x0 + noise * batch.eps)
    torch.testing.assert_close(seen[0][1], batch.t * 1000 / 50)


def test_a_batch_is_a_function_of_the_seed_and_the_step(pixels):
    indices = np.arange(10)
    one, other = Trainer(TINY), Trainer(TINY)
    train(other, pixels, 2)
    torch.manual_seed(99)
    for step in (0, 7, 10**6):
        a, b = one.batch(pixels, indices, step), other.batch(pixels, indices, step)
        for name in ("x0", "t", "eps"):
            assert torch.equal(getattr(a, name), getattr(b, name))
    for changed in (
        one.batch(pixels, indices, 1),
        Trainer(with_(seed=1)).batch(pixels, indices, 0),
    ):
        first = one.batch(pixels, indices, 0)
        assert not torch.equal(changed.eps, first.eps)
        assert not torch.equal(changed.x0, first.x0)


def test_pictures_in_memory_or_on_disk_make_the_same_batch(pixels):
    trainer, indices = Trainer(TINY), np.arange(10)
    a = trainer.batch(pixels, indices, 5)
    b = trainer.batch(torch.from_numpy(pixels), indices, 5)
    assert torch.equal(a.x0, b.x0)


def test_only_the_chosen_pictures_are_seen(pixels):
    trainer = Trainer(with_(batch=64))
    chosen = np.array([2, 5])
    batch = trainer.batch(pixels, chosen, 0)
    known = from_uint8(pixels[chosen])
    which = [[torch.equal(x0, face) for face in known] for x0 in batch.x0]
    assert all(any(row) for row in which)
    assert 16 < sum(row[0] for row in which) < 48


def test_levels_lie_in_1_to_T_and_are_evenly_spread_in_every_batch(pixels):
    trainer = Trainer(with_(batch=16, T=32))
    counts = np.zeros(33)
    for step in range(300):
        t = trainer.batch(pixels, np.arange(10), step).t
        assert t.dtype == torch.int64
        # Sixteen draws over thirty-two levels: one in every pair of levels, up to the start.
        assert len(t.unique()) == 16
        ordered = t.sort().values
        assert ordered.diff().min() >= 1
        assert ordered.diff().max() <= 3
        counts += np.bincount(t.numpy(), minlength=33)
    assert counts[0] == 0
    assert counts[1:].min() > 100
    assert counts[1:].max() < 200


def test_flipping_mirrors_about_half_of_the_pictures(pixels):
    indices = np.arange(10)
    plain = Trainer(with_(batch=64)).batch(pixels, indices, 0)
    flipped = Trainer(with_(batch=64, flip=True)).batch(pixels, indices, 0)
    same = [torch.equal(a, b) for a, b in zip(plain.x0, flipped.x0, strict=True)]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(plain.x0, flipped.x0, strict=True)]
    assert sum(same) + sum(mirrored) == 64
    assert 16 < sum(same) < 48
    assert torch.equal(plain.eps, flipped.eps)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction": "eps"},
        {"prediction": "x0"},
        {"prediction": "dual"},
        {"schedule": "linear"},
        {"min_snr": 5.0},
    ],
    ids=str,
)
def test_a_tiny_network_learns_one_picture(changes):
    """The loss of a fixed batch falls, for the network and for its average."""
    settings = {"size": 8, "widths": (32,), "ema": 0.8, "lr": 1e-2, "warmup": 5, **changes}
    config = with_(images=16 * 60, batch=16, **settings)
    trainer = Trainer(config)
    one = np.array([[0, 0, 0], [255, 128, 0]], dtype=np.uint8).repeat(4, axis=0)
    one = np.broadcast_to(one[None, :, None], (1, 8, 8, 3)).copy()
    fixed = Trainer(with_(batch=128, **settings)).batch(one, np.array([0]), 0)
    before = trainer.loss(fixed).item()
    train(trainer, one, config.steps)
    after = trainer.loss(fixed).item()
    trainer.network = trainer.ema
    average = trainer.loss(fixed).item()
    assert after < 0.8 * before
    assert average < 0.8 * before


def test_a_step_in_bfloat16_is_near_one_in_float32(pixels):
    losses, weights = [], []
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(with_(precision=precision))
        losses.append(train(trainer, pixels, 3))
        weights.append(trainer.network.stem.weight)
        assert trainer.network.stem.weight.dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    torch.testing.assert_close(*weights, atol=3e-3, rtol=0)


def test_steps_too_small_for_bfloat16_still_add_up(pixels):
    """0.5 has no neighbour in bfloat16 nearer than 0.002; fifty steps of 1e-4 go beyond it."""
    trainer = Trainer(with_(images=4 * 100, precision="bfloat16", lr=1e-4, warmup=1))
    with torch.no_grad():
        trainer.network.stem.weight.fill_(0.5)
    train(trainer, pixels, 50)
    moved = (trainer.network.stem.weight - 0.5).abs()
    assert moved.max() > 0.002
    assert (moved[moved > 0] < 0.002).any()


def test_the_average_follows_the_weights_with_its_decay(pixels):
    trainer = Trainer(with_(ema=0.5))
    for step in range(4):
        before = [value.clone() for value in trainer.ema.parameters()]
        train(trainer, pixels, 1)
        decay = min(0.5, (1 + step) / (10 + step))
        for old, new, weight in zip(
            before, trainer.ema.parameters(), trainer.network.parameters(), strict=True
        ):
            torch.testing.assert_close(new, decay * old + (1 - decay) * weight)


def test_the_budget_is_counted_in_pictures(pixels):
    trainer = Trainer(with_(images=10, batch=4))
    progress = list(trainer.run(pixels, np.arange(10)))
    assert [(p.step, p.steps, p.images) for p in progress] == [(1, 3, 4), (2, 3, 8), (3, 3, 10)]
    assert list(trainer.run(pixels, np.arange(10))) == []
    assert trainer.images == 10


def test_the_same_seed_makes_the_same_weights_and_another_one_others():
    first, again = (Trainer(TINY).network.state_dict() for _ in range(2))
    other = Trainer(with_(seed=1)).network.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_making_a_trainer_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Trainer(TINY)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_state_put_into_a_new_trainer_goes_on_bit_for_bit(pixels, steps):
    straight, first = Trainer(TINY), Trainer(TINY)
    losses = train(straight, pixels, 10)
    train(first, pixels, steps)
    state = {name: value.contiguous().clone() for name, value in first.state().items()}
    train(first, pixels, 1)  # the state is a copy: going on does not touch it

    second = Trainer(TINY)
    train(second, pixels, 2)  # whatever it held before is replaced
    second.load(state)
    assert second.step == steps
    assert train(second, pixels, 10 - steps) == losses[steps:]
    expected, found = straight.state(), second.state()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_the_model_is_the_average_and_says_how_it_was_trained(pixels):
    trainer = Trainer(with_(prediction="x0", schedule="linear"))
    train(trainer, pixels, 3)
    model = trainer.model(seconds=12)
    assert model.network is trainer.ema
    assert (model.prediction, model.schedule) == ("x0", Schedule.linear(50))
    assert (model.training["step"], model.training["seconds"]) == (3, 12)
    assert model.training["batch"] == 4


def test_a_model_without_its_labels_draws_as_it_does_when_nothing_is_asked():
    network = randomised(UNetConfig(size=16, widths=(16, 32), labels=(3, 2)), std=0.1)
    labels = {"hair": ("a", "b", "c"), "hat": ("no", "yes")}
    model = DiffusionModel(ready(network), Schedule.cosine(50), labels=labels)
    plain = unlabelled(model)
    assert not plain.labels
    x, time = torch.randn(3, 3, 16, 16), torch.tensor([1.0, 400.0, 990.0])
    torch.testing.assert_close(plain.network(x, time), network(x, time), atol=1e-5, rtol=1e-5)


def test_a_run_takes_over_what_the_labels_of_a_saved_model_mean(tmp_path):
    labels = {"hair": ("a", "b", "c"), "hat": ("no", "yes")}
    config = with_(labels=labels)
    saved = Trainer(config).model().save_pretrained(tmp_path)
    trainer = Trainer(dataclasses.replace(config, seed=1))
    trainer.begin_with(DiffusionModel.from_pretrained(saved))
    for ours, theirs in zip(trainer.network.labels, Trainer(config).network.labels, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-3, rtol=0)


def test_a_run_whose_attributes_come_in_another_order_learns_them_anew():
    config = with_(labels={"hat": ("no", "yes"), "beard": ("no", "yes")})
    model = Trainer(dataclasses.replace(config, seed=1)).model()
    trainer = Trainer(with_(labels={"beard": ("no", "yes"), "hat": ("no", "yes")}))
    learned = [table.weight.clone() for table in trainer.network.labels]
    trainer.begin_with(model)
    for ours, before in zip(trainer.network.labels, learned, strict=True):
        assert torch.equal(ours.weight, before)


def test_a_trainer_does_not_begin_with_a_model_of_another_shape():
    model = DiffusionModel(UNet(UNetConfig(size=16, widths=(16,))), Schedule.cosine(50))
    with pytest.raises(ValueError, match="has another shape than the run; start anew"):
        Trainer(TINY).begin_with(model)


def test_a_resumed_optimizer_counts_its_steps_where_a_new_one_does():
    """On a device whose AdamW is not fused, reading the count there would be waited for."""
    first, second = Trainer(TINY, "meta"), Trainer(TINY, "meta")
    first._weights.grad = torch.zeros_like(first._weights)
    first.optimizer.step()
    first.step = 1
    state = first.state()
    state["step"] = torch.tensor(1)
    second.load(state)
    counted = [one.optimizer.state[one._weights]["step"].device for one in (first, second)]
    assert counted == [torch.device("cpu")] * 2
