from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from stand_ins import randomised

from diffusion import DiffusionModel, Noise, Schedule, UNet, UNetConfig, ddim, sample
from diffusion.train_config import PRESETS
from diffusion.unet import LABEL_STD, Attention, Block, attend, gflop, parameter_count

SMALL = UNetConfig(size=PRESETS["small"]["size"], widths=PRESETS["small"]["widths"])
LABELLED = UNetConfig(size=16, widths=(16, 32), labels=(3, 2))


def batch(config: UNetConfig, count: int = 2, seed: int = 0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, config.channels, config.size, config.size, generator=rng)
    return x, torch.rand(count, generator=rng) * 1000


@pytest.fixture(scope="module")
def small() -> UNet:
    return randomised(SMALL)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_output_has_the_shape_of_the_input(preset, size):
    config = UNetConfig(size=size, widths=PRESETS[preset]["widths"])
    x, time = batch(config, 1)
    assert UNet(config)(x, time).shape == x.shape


@pytest.mark.parametrize("width", range(16, 257, 16))
def test_attention_works_at_every_width_that_a_config_allows(width):
    config = UNetConfig(size=16, widths=(width,))
    x, time = batch(config, 1)
    assert randomised(config)(x, time).shape == x.shape


def test_the_small_network_is_small():
    network = UNet(SMALL)
    assert 5e6 < parameter_count(network) < 11e6
    assert gflop(network) <= 3


@pytest.mark.parametrize("size", [32, 64, 128])
def test_attention_runs_at_8_by_8_alone(size):
    network = UNet(UNetConfig(size=size, widths=SMALL.widths))
    seen = []
    for module in network.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[2:]))
    network(*batch(network.config, 1))
    assert seen
    assert set(seen) == {(8, 8)}


def test_a_new_network_answers_zero():
    network = UNet(SMALL)
    assert not network(*batch(SMALL)).any()


def test_the_answer_depends_on_the_picture_and_on_the_time(small):
    x, time = batch(SMALL)
    answer = small(x, time)
    assert (small(x + 0.1, time) - answer).abs().max() > 1e-3
    assert (small(x, time / 2) - answer).abs().max() > 1e-3


def test_every_pixel_hears_of_every_other(small):
    x, time = batch(SMALL, 1)
    x.requires_grad_()
    small(x, time)[0, 0, 0, 0].backward()
    assert x.grad.abs().amin(dim=(0, 1)).flatten()[[63, 64 * 63, -1]].min() > 0


def test_channels_last_changes_the_memory_and_not_the_answer(small):
    x, time = batch(SMALL)
    last = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(small(last, time), small(x, time), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16_is_near_float32(small, how):
    x, time = batch(SMALL)
    with torch.no_grad():
        exact = small(x, time)
        if how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rough = small(x, time).float()
        else:
            half = UNet(SMALL)
            half.load_state_dict(small.state_dict())
            rough = half.eval().bfloat16()(x.bfloat16(), time).float()
    assert (rough - exact).norm() / exact.norm() < 0.03


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_attention_learns_by_the_gradients_of_torchs_own(dtype, near):
    heads = torch.randn(3, 2, 6, 64, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = []
    for function in (attend, F.scaled_dot_product_attention):
        q, k, v = (part.clone().requires_grad_() for part in heads)
        answer = function(q, k, v)
        (answer * heads[0]).sum().backward()
        found.append([answer, q.grad, k.grad, v.grad])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=near, rtol=near)


def test_float64_weights_work_too(small, tiny):
    network = randomised(tiny).double()
    x, time = batch(tiny)
    assert network(x.double(), time.double()).dtype == torch.float64


def test_no_labels_means_any_label():
    network = randomised(LABELLED)
    x, time = batch(LABELLED)
    torch.testing.assert_close(
        network(x, time), network(x, time, torch.full((2, 2), -1)), atol=0, rtol=0
    )


def test_labels_reach_the_network_through_their_tables_alone():
    network = randomised(LABELLED)
    for table in network.labels:
        torch.nn.init.zeros_(table.weight)
    x, time = batch(LABELLED)
    assert torch.equal(network(x, time), network(x, time, torch.tensor([[1, 1], [2, 0]])))


def test_values_begin_apart_from_each_other_and_any_begins_as_nothing():
    for table in UNet(LABELLED).labels:
        weight = table.weight.detach()
        assert (weight[0] == 0).all()
        assert weight[1:].std().item() == pytest.approx(LABEL_STD, rel=0.2)


def test_every_attribute_changes_the_answer_of_its_own_image_once_tables_are_learned():
    network = randomised(LABELLED)
    for table in network.labels:
        torch.nn.init.normal_(table.weight, std=0.5)
    x, time = batch(LABELLED)
    plain = network(x, time, torch.tensor([[1, 1], [2, 0]]))
    for other in ([[0, 1], [2, 0]], [[1, 0], [2, 0]], [[-1, 1], [2, 0]]):
        answer = network(x, time, torch.tensor(other))
        assert (answer[0] - plain[0]).abs().max() > 1e-3
        torch.testing.assert_close(answer[1], plain[1])


def test_gradients_reach_every_parameter():
    network = randomised(LABELLED)
    x, time = batch(LABELLED, 6)
    labels = torch.tensor([[-1, -1], [0, 0], [1, 1], [2, 0], [0, 1], [1, -1]])
    network(x, time, labels).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_residual_branches_start_as_nothing():
    x = torch.randn(2, 32, 8, 8)
    block = Block(32, 32, 64, attention=True)
    film = block.film_of(torch.randn(2, 64))[:, :, None, None]
    torch.testing.assert_close(block(x, film), x)


def test_a_config_survives_json():
    config = UNetConfig(size=32, widths=(16, 48), blocks=2, labels=(4, 5))
    again = UNetConfig(**json.loads(json.dumps(config.to_json())))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize(
    "absurd",
    [
        {"size": 0},
        {"size": 63},
        {"size": 100_000},
        {"size": 8},
        {"channels": 0},
        {"channels": 5},
        {"blocks": 0},
        {"blocks": 1000},
        {"widths": ()},
        {"widths": (16,) * 9},
        {"widths": (17,)},
        {"widths": (0,)},
        {"widths": (1_000_000,)},
        {"labels": (0,)},
        {"labels": (10**9,)},
        {"labels": (2,) * 100},
    ],
)
def test_absurd_configs_are_refused_in_one_sentence(absurd):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        UNetConfig(**absurd)


@pytest.mark.slow
def test_a_face_alone_and_among_sixteen_is_the_same_face(small):
    """Convolutions may sum in another order, so within 2/255 in float32."""
    model = DiffusionModel(small, Schedule.cosine())
    plan = ddim(model.schedule, model.schedule.levels(10))

    def draw(seeds):
        noise = Noise(seeds, model.shape)
        *_, last = sample(model.denoiser(clip=True), plan, noise(1000), noise)
        return last.x

    alone, among = draw([5]), draw(range(16))
    assert alone.std() > 0.1
    assert ((alone[0] - among[5]).abs().max() * 127.5).item() <= 2


@pytest.mark.parametrize(
    "setting",
    [
        {"size": 64.0},
        {"channels": True},
        {"blocks": 1.5},
        {"blocks": "1"},
        {"widths": (32.0, 64)},
        {"labels": (2.0,)},
        {"out_channels": 7.0},
    ],
    ids=str,
)
def test_numbers_that_are_not_whole_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=rf"^{name} \S+ of a UNet; choose a whole number$"):
        UNetConfig(**setting)
