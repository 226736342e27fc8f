"""The network: a small U-Net that works at half resolution and sees the level through FiLM.

`pixel_unshuffle(2)` folds each 2×2 block of pixels into channels, so that the widest
activations are a quarter of the picture's size; attention runs at 8×8 only, where a head sees
the whole face for almost nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLD = 2  # pixels per side that pixel_unshuffle folds into channels
ATTENTION_SIZE = 8
GROUP = 16  # channels per GroupNorm group
HEAD = 32  # channels per attention head
# Of a value's embedding at the start: tables that begin at zero stay small beside the time's, and
# short trainings then hardly follow their labels.
LABEL_STD = 0.3


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a UNet; `labels` holds the number of values of each attribute.

    Raises ValueError for numbers that are not whole or that no network should have.
    """

    size: int = 64  # picture side in pixels
    channels: int = 3
    widths: tuple[int, ...] = (32, 64, 128, 256)  # at size/2, size/4, size/8, ...
    blocks: int = 1  # residual blocks per resolution on the way down, one more on the way up
    labels: tuple[int, ...] = ()
    out_channels: int | None = None  # of the answer; None: as many as the picture has

    def __post_init__(self) -> None:
        # JSON has lists only; tuples keep the value hashable.
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "labels", tuple(self.labels))
        self._check_whole()
        step = FOLD * 2 ** (len(self.widths) - 1)
        if not 1 <= len(self.widths) <= 6 or any(
            not 16 <= w <= 1024 or w % 16 for w in self.widths
        ):
            raise ValueError(f"widths {self.widths}; choose 1 to 6 multiples of 16, at most 1024")
        if not step <= self.size <= 512 or self.size % step:
            raise ValueError(f"size {self.size} px; choose a multiple of {step}, at most 512")
        if not 1 <= self.channels <= 4 or not 1 <= self.blocks <= 8:
            raise ValueError("a UNet has 1 to 4 image channels and 1 to 8 blocks per resolution")
        if self.out_channels is not None and not 1 <= self.out_channels <= 16:
            raise ValueError("a UNet answers with 1 to 16 channels")
        if len(self.labels) > 32 or any(not 1 <= count <= 1000 for count in self.labels):
            raise ValueError("a UNet has at most 32 attributes of 1 to 1000 values each")

    def _check_whole(self) -> None:
        # JSON has 64.0 and true as well, which compare like numbers and fail in the network.
        for name, value in asdict(self).items():
            if value is None and name == "out_channels":
                continue
            for number in value if isinstance(value, tuple) else (value,):
                if not isinstance(number, int) or isinstance(number, bool):
                    raise ValueError(f"{name} {number!r} of a UNet; choose a whole number")

    def to_json(self) -> dict:
        """The settings as JSON types; `UNetConfig(**value)` is the way back."""
        return asdict(self)


class UNet(nn.Module):
    """network(x, time, labels=None) -> (B, out_channels, size, size), or the shape of x.

    x is (B, channels, size, size); time is float (B,) in 0..1000; labels are int64
    (B, attributes) with -1 for "any", and None leaves every attribute open. The answer is in the
    number format of the weights.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        widths, folded = config.widths, config.channels * FOLD**2
        dim = 4 * widths[0]
        self.time = TimeEmbedding(dim)
        # Row 0 of each table is "any", and begins as nothing.
        self.labels = nn.ModuleList(nn.Embedding(count + 1, dim) for count in config.labels)
        for table in self.labels:
            nn.init.normal_(table.weight, std=LABEL_STD)
            nn.init.zeros_(table.weight[0])

        size = config.size // FOLD
        self.stem = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for i, wider in enumerate(widths):
            if i:
                self.down.append(Downsample(width))
                skips.append(width)
                size //= 2
            for _ in range(config.blocks):
                self.down.append(Block(width, wider, dim, attention=size == ATTENTION_SIZE))
                skips.append(wider)
                width = wider

        self.middle = Block(width, width, dim, attention=size == ATTENTION_SIZE)

        self.up = nn.ModuleList()
        for i, narrower in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                block = Block(width + skips.pop(), narrower, dim, attention=size == ATTENTION_SIZE)
                self.up.append(block)
                width = narrower
            if i:
                self.up.append(Upsample(width))
                size *= 2
        answer = (config.out_channels or config.channels) * FOLD**2
        self.head = nn.Sequential(norm(width), nn.SiLU(), nn.Conv2d(width, answer, 3, padding=1))
        zero_(self.head[-1])

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predict for x at `time`; see the class for the shapes."""
        return self.body(x, self.films(time, labels))

    def films(self, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """All that the body needs to know of time and labels, (B, F); x plays no part in it."""
        condition = F.silu(self._condition(time, labels))
        return torch.cat([block.film_of(condition) for block in self._blocks()], dim=1)

    def body(self, x: Tensor, films: Tensor) -> Tensor:
        """Predict for x, given its `films`, (B, F) or (1, F) where all images have the same."""
        widths = [2 * block.width for block in self._blocks()]
        h = self.stem(F.pixel_unshuffle(x, FOLD).to(self.stem.weight.dtype))
        # In h's number format: films are kept in float32 beside narrow weights, and at that width
        # would take the activations of every block through memory at twice the size.
        film = iter(films.to(h.dtype)[:, :, None, None].split(widths, dim=1))
        skips = [h]
        for layer in self.down:
            h = layer(h, next(film)) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        h = self.middle(h, next(film))
        for layer in self.up:
            if isinstance(layer, Block):
                h = layer(torch.cat([h, skips.pop()], dim=1), next(film))
            else:
                h = layer(h)
        return F.pixel_shuffle(self.head(h), FOLD)

    def _blocks(self) -> list[Block]:
        layers = [*self.down, self.middle, *self.up]
        return [layer for layer in layers if isinstance(layer, Block)]

    def _condition(self, time: Tensor, labels: Tensor | None) -> Tensor:
        condition = self.time(time)
        for i, table in enumerate(self.labels):
            if labels is None:
                condition = condition + table.weight[0]
            else:
                condition = condition + table(labels[:, i] + 1)
        return condition


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time at geometric frequencies (DDPM appendix B), then an MLP."""

    def __init__(self, dim: int, frequencies: int = 64):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.frequencies = frequencies

    def forward(self, time: Tensor) -> Tensor:
        """time (B,) to its embedding (B, dim)."""
        # Not a buffer: in bfloat16 weights, rounded frequencies would be off by whole turns.
        scale = -math.log(10_000) / self.frequencies
        angle = time[:, None].float() * torch.exp(
            scale * torch.arange(self.frequencies, device=time.device)
        )
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=1).to(self.mlp[0].weight.dtype))


class Block(nn.Module):
    """Residual block: two convolutions, the second modulated by the condition (FiLM)."""

    def __init__(self, width_in: int, width: int, dim: int, attention: bool = False):
        super().__init__()
        self.width = width
        self.norm1 = norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.film = nn.Linear(dim, 2 * width)
        self.norm2 = norm(width)
        self.conv2 = zero_(nn.Conv2d(width, width, 3, padding=1))
        self.skip = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        self.attention = Attention(width) if attention else nn.Identity()

    def film_of(self, condition: Tensor) -> Tensor:
        """(B, dim) to (B, 2·width): the factors of the normalised channels, then what to add."""
        scale, shift = self.film(condition).chunk(2, dim=1)
        scale = 1 + scale
        # norm2's own affine map is taken in, so that one pass over memory does both.
        return torch.cat([self.norm2.weight * scale, self.norm2.bias * scale + shift], dim=1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """(B, width_in, h, w) and its film (B, 2·width, 1, 1) to (B, width, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = film.chunk(2, dim=1)
        h = F.group_norm(h, self.norm2.num_groups, eps=self.norm2.eps)
        h = torch.addcmul(shift, h, scale)
        return self.attention(self.skip(x) + self.conv2(F.silu(h)))


class Attention(nn.Module):
    """Residual self-attention over all positions."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = width // (HEAD if width % HEAD == 0 else GROUP)
        self.norm = norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = zero_(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        batch, width, height, breadth = x.shape
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (B, positions, 3·width)
        heads = qkv.reshape(batch, height * breadth, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()
        # (B, heads, positions, width / heads)
        learns = self.training and x.device.type == "cpu"
        h = attend(q, k, v) if learns else F.scaled_dot_product_attention(q, k, v)
        h = h.transpose(1, 2).reshape(batch, height, breadth, width).permute(0, 3, 1, 2)
        return x + self.out(h)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """F.scaled_dot_product_attention written out: (..., positions, channels) to the same shape.

    For so few positions, the way back through torch's own kernel for CPUs takes ten times as long.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    exact = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=exact).to(v.dtype) @ v


class Downsample(nn.Module):
    """Half the resolution, by a strided convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to (B, width, h/2, w/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the resolution: nearest neighbours, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to (B, width, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def norm(width: int) -> nn.GroupNorm:
    """GroupNorm with groups of 16 channels."""
    return nn.GroupNorm(width // GROUP, width)


def zero_(layer: nn.Conv2d) -> nn.Conv2d:
    """Start a layer at zero, so that its residual branch begins as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def parameter_count(network: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def gflop(network: UNet) -> float:
    """Multiply-adds of one image's forward pass, counted as two operations each, in 10⁹."""
    from torch.utils.flop_counter import FlopCounterMode

    size, channels = network.config.size, network.config.channels
    device = next(network.parameters()).device
    x = torch.zeros(1, channels, size, size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, torch.zeros(1, device=device))
    return counter.get_total_flops() / 1e9
