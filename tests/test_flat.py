"""A network's weights in one piece of memory: diffusion/flat.py."""

import copy

import pytest
import torch
from torch import nn

from diffusion.flat import NarrowCopy, clip_norm_, flatten, joined, parts, take_gradients
from diffusion.train_config import TrainConfig
from diffusion.training import Trainer
from diffusion.unet import UNet, UNetConfig

CONFIG = UNetConfig(size=16, widths=(16, 32))


def network() -> UNet:
    torch.manual_seed(0)
    made = UNet(CONFIG).to(memory_format=torch.channels_last)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made


def test_a_flattened_network_keeps_its_values_and_formats_and_its_answer():
    before = network()
    after = copy.deepcopy(before)
    flatten(after)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new)
        assert old.stride() == new.stride()
    x, time = torch.randn(2, 3, 16, 16), torch.tensor([10.0, 900.0])
    assert torch.equal(before(x, time), after(x, time))


def test_a_change_of_the_flat_weights_is_one_of_the_network():
    made = network()
    flat = flatten(made)
    flat.fill_(0.5)
    assert all((parameter == 0.5).all() for parameter in made.parameters())
    assert len(flat) == sum(parameter.numel() for parameter in made.parameters())


def test_parts_undo_joined():
    tensors = [torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.randn(7)]
    for tensor, part in zip(tensors, parts(joined(tensors), tensors), strict=True):
        assert torch.equal(tensor, part)
        assert tensor.stride() == part.stride()


def test_gradients_lie_where_their_weights_lie_and_a_missing_one_is_zero():
    made = network()
    flatten(made)
    parameters = list(made.parameters())
    for i, parameter in enumerate(parameters[:-1]):
        parameter.grad = torch.full(parameter.shape, float(i)).contiguous()
    found = parts(torch.ones(sum(map(torch.numel, parameters))), parameters)
    take_gradients(parameters, found)
    for i, part in enumerate(found[:-1]):
        assert (part == i).all()
    assert (found[-1] == 0).all()
    assert all(parameter.grad is None for parameter in parameters)


def test_a_step_over_flat_weights_is_a_step_over_each_tensor():
    config = TrainConfig(images=64, size=16, widths=(16, 32), batch=4, ema=0.9)
    trainer = Trainer(config)
    alone = copy.deepcopy(trainer.network)
    optimizer = torch.optim.AdamW(
        alone.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (8, 16, 16, 3), generator=rng, dtype=torch.uint8).numpy()
    indices = torch.arange(8).numpy()
    for step in range(3):
        batch = trainer.batch(pixels, indices, step)
        optimizer.zero_grad()
        kept, trainer.network = trainer.network, alone
        trainer.loss(batch).backward()
        trainer.network = kept
        nn.utils.clip_grad_norm_(alone.parameters(), config.clip_norm)
        optimizer.step()
        trainer.update(batch, 1e-3)
        trainer.step += 1
    for one, other in zip(alone.parameters(), trainer.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [0.5, 1e9, float("inf")])
def test_a_clipped_gradient_is_the_one_that_torch_clips(most):
    ours, parameter = torch.randn(1000), nn.Parameter(torch.zeros(1000))
    parameter.grad = ours.clone()
    clip_norm_(ours, most)
    nn.utils.clip_grad_norm_([parameter], most)
    torch.testing.assert_close(ours, parameter.grad, rtol=1e-5, atol=0)


def test_a_gradient_that_is_not_a_number_stays_so():
    gradient = torch.tensor([1.0, float("nan")])
    clip_norm_(gradient, 1.0)
    assert gradient.isnan().any()


def test_a_narrow_copy_computes_with_the_weights_as_they_are_now():
    made = network()
    weights = flatten(made)
    narrow = NarrowCopy.of(made, torch.bfloat16)
    x, time = torch.randn(2, 3, 16, 16), torch.tensor([10.0, 900.0])
    for factor in (1.0, 0.5):
        weights.mul_(factor)
        expected = copy.deepcopy(made).bfloat16()(x, time)
        assert torch.equal(narrow.following(weights)(x, time), expected)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}


def test_a_network_of_that_format_needs_no_copy():
    assert NarrowCopy.of(network(), torch.float32) is None
