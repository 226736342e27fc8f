"""GroupNorm for OpenVINO, written in operations that work wherever the channels lie.

OpenVINO's own wants each channel's pixels side by side, its convolutions each pixel's channels:
around every norm of a network, all activations are turned over and back again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino


def rewrite(graph: openvino.Model) -> None:
    """Replace every GroupNormalization of a graph of known height and width, in place."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "GroupNormalization":
            node.output(0).replace(_written_out(node).output(0))
    graph.validate_nodes_and_infer_types()


def _written_out(norm: openvino.Node) -> openvino.Node:
    """x·a + b with one a and b per channel: a = scale / std, b = bias - mean·a."""
    from openvino import opset13 as ops

    x, scale, bias = norm.input_values()
    _, channels, *sides = x.get_partial_shape()
    groups = norm.get_attributes()["num_groups"]
    each = channels.get_length() // groups
    grid = [-1, 1, groups, each]

    def as_grid(per_channel: openvino.Output | openvino.Node) -> openvino.Node:
        return ops.reshape(per_channel, grid, special_zero=False)

    def mean_of_groups(picture: openvino.Output | openvino.Node) -> openvino.Node:
        height, width = (side.get_length() for side in sides)
        return _pooled(as_grid(_pooled(picture, [height, width])), [1, each])

    mean = mean_of_groups(x)
    spread = ops.subtract(mean_of_groups(ops.multiply(x, x)), ops.multiply(mean, mean))
    # Rounded to bfloat16, the difference of two such numbers may be a little less than nothing.
    variance = ops.add(ops.relu(spread), np.float32(norm.get_attributes()["epsilon"]))
    a = ops.divide(as_grid(scale), ops.sqrt(variance))
    b = ops.subtract(as_grid(bias), ops.multiply(mean, a))
    a, b = (ops.reshape(one, [-1, groups * each, 1, 1], special_zero=False) for one in (a, b))
    return ops.add(ops.multiply(x, a), b)


def _pooled(picture: openvino.Output | openvino.Node, kernel: list[int]) -> openvino.Node:
    """The mean of each kernel-sized piece of (B, C, H, W): several times as fast as ReduceMean."""
    from openvino import opset13 as ops

    return ops.avg_pool(picture, kernel, [0, 0], [0, 0], kernel, exclude_pad=False)
