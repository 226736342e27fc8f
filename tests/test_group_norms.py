"""GroupNorm written out for OpenVINO is GroupNorm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from stand_ins import randomised
from torch import Tensor, nn

from diffusion import DiffusionModel, Schedule, UNetConfig, compiled, group_norms
from diffusion.model import ready

openvino = pytest.importorskip("openvino")


EPSILON = 1e-5
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


class Norm(nn.Module):
    """Groups of 16 channels; with no scale of its own, as inside of a Block."""

    def __init__(self, channels: int, affine: bool):
        super().__init__()
        self.groups = channels // 16
        self.register_buffer("scale", torch.linspace(-2, 2, channels) if affine else None)
        self.register_buffer("bias", torch.linspace(1, -3, channels) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.scale, self.bias, EPSILON)


def written_out(norm: Norm, x: Tensor, precision: str = "f32") -> Tensor:
    graph = openvino.convert_model(norm, example_input=x)
    graph.reshape([-1, *x.shape[1:]])
    group_norms.rewrite(graph)
    assert "GroupNormalization" not in {node.get_type_name() for node in graph.get_ops()}
    core = openvino.Core()
    ready = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return torch.from_numpy(ready(x.numpy())[0])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("channels", "height", "width"), [(16, 8, 8), (48, 16, 8), (64, 3, 5)])
def test_a_norm_written_out_is_the_norm(channels, height, width, affine):
    norm = Norm(channels, affine)
    x = 3 * torch.randn(5, channels, height, width) + torch.arange(5.0).reshape(5, 1, 1, 1)
    torch.testing.assert_close(written_out(norm, x), norm(x), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor has no bfloat16",
)
def test_a_group_of_one_colour_stays_a_number_in_bfloat16():
    norm = Norm(32, affine=True)
    x = torch.full((2, 32, 8, 8), 77.7)
    out = written_out(norm, x, "bf16")
    assert out.isfinite().all()


def test_a_converted_network_is_without_norms_that_turn_everything_over(tmp_path, monkeypatch):
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path))
    unet = ready(randomised(UNetConfig(size=16, widths=(16, 32))))
    graph = openvino.Core().read_model(compiled.convert(DiffusionModel(unet, Schedule.cosine())))
    kinds = {node.get_type_name() for node in graph.get_ops()}
    assert "AvgPool" in kinds
    assert not kinds & {"GroupNormalization", "MVN"}
