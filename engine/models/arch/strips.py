"""The autoencoder in strips of rows: far less memory, the same result as over the whole picture, without seams.

A convolution needs a few rows beyond a strip; these are computed twice. A normalisation needs the mean and variance of
the whole picture; a pass over all strips finds them first. So a stretch of the network with n normalisations is walked
n + 1 times, each time a little further. `BLOCKS` keeps the feature map after every block, `LEVELS` only after every
change of resolution: more work, less memory. A block whose result is as large as its input leaves it there. Attention,
at the lowest resolution, sees the whole picture as ever.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sigmagraph.engine.models.arch.vae import Autoencoder, Level, ResidualBlock, Walk, activated
from sigmagraph.engine.sampling.exact import exact

STRIP_ELEMENTS = 1 << 24  # of the widest feature map in one strip, at most
FEWEST_STRIPS = 8  # where a picture is that large: a strip that is most of it would save nothing
Statistics = tuple[Tensor, Tensor]


class Keeping(Enum):
    """Which feature maps of full size exist at once, from fast to frugal."""

    WHOLE = "whole"
    BLOCKS = "blocks"
    LEVELS = "levels"


@dataclass(frozen=True)
class Piece:
    """Layers in a row. `grows`: rows out per row in; `reach`: how many rows beyond a strip of its input it looks at.

    `channels`: of its widest map.
    """

    walk: Callable[[Tensor], Walk]
    channels: int
    reach: int = 1
    grows: float = 1.0


Stretch = Sequence[Piece]


@torch.no_grad()
def decoded(network: Autoencoder, latent: Tensor, keeping: Keeping) -> Tensor:
    """`Autoencoder.decode` of one latent [1, 16, h, w]."""
    decoder = network.decoder
    if keeping is Keeping.WHOLE:
        return network.decode(latent)
    levels: list[list[list[Piece]]] = []
    for level in reversed(decoder.up):
        assert isinstance(level, Level)
        doubled = [levels[-1][-1].pop()] if levels and levels[-1][-1][-1].grows > 1 else []
        levels.append([[_block(layer)] for layer in level.block])
        levels[-1][0] = doubled + levels[-1][0]
        if level.is_doubled:
            levels[-1][-1].append(_plain(level.upsample, 2.0))
    levels[-1].append([_last(decoder.norm_out, decoder.conv_out)])
    return _run(levels, decoder.mid(decoder.conv_in(latent)), keeping)


@torch.no_grad()
def encoded(network: Autoencoder, image: Tensor, keeping: Keeping) -> Tensor:
    """The mean that `Autoencoder.encode` gives for one image [1, 3, H, W]; H and W are multiples of 8."""
    encoder = network.encoder
    if keeping is Keeping.WHOLE:
        return network.encode(image)[0]
    levels: list[list[list[Piece]]] = []
    for level in encoder.down:
        assert isinstance(level, Level)
        levels.append([[_block(layer)] for layer in level.block])
        if level.is_halved:
            levels[-1][-1].append(_plain(level.downsample, 0.5))
    levels[0][0].insert(0, _plain(encoder.conv_in))
    x = encoder.mid(_run(levels, image, keeping))
    moments: Tensor = encoder.conv_out(activated(encoder.norm_out(x)))
    return moments.chunk(2, dim=1)[0]


def _run(levels: Sequence[Sequence[Stretch]], x: Tensor, keeping: Keeping) -> Tensor:
    """All levels after one another; what is kept between walks is what `keeping` says."""
    is_ours = False
    for blocks in levels:
        joined = blocks if keeping is Keeping.BLOCKS else [[piece for block in blocks for piece in block]]
        for stretch in joined:
            x = _stretched(stretch, x, is_ours)
            is_ours = True
    return x


def _block(module: nn.Module) -> Piece:
    assert isinstance(module, ResidualBlock)
    return Piece(module.walk, _widest(module), reach=2)


def _plain(module: nn.Module | Tensor, grows: float = 1.0) -> Piece:
    """A layer without normalisation."""
    assert isinstance(module, nn.Module)

    def walk(x: Tensor) -> Walk:
        yield from ()
        result: Tensor = module(x)
        return result

    return Piece(walk, _widest(module), grows=grows)


def _last(layer: nn.GroupNorm, convolution: nn.Conv2d) -> Piece:
    """The final normalisation and convolution."""

    def walk(x: Tensor) -> Walk:
        normed = yield layer, x
        result: Tensor = convolution(activated(normed))
        return result

    return Piece(walk, _widest(convolution))


def _widest(module: nn.Module) -> int:
    return max(max(weight.shape[:2]) for weight in module.parameters() if weight.ndim == 4)


def _stretched(stretch: Stretch, source: Tensor, is_ours: bool) -> Tensor:
    """A stretch of the network over `source` [1, C, H, W], strip by strip; one of ours may be overwritten."""
    known: list[Statistics] = []
    result: Tensor | None = None
    over: Tensor | None = None
    while True:
        tally = _Tally()
        for strip in _strips(stretch, source):
            cut = strip.cut(source, over)
            layer, reached = _advanced(stretch, cut, known)
            if layer is not None:
                tally.add(strip.core(reached), layer)
            else:
                core = strip.core(reached)
                result = _kept(strip, core, source, result, is_ours)
                over = strip.last(cut) if result is source else None
                result[..., strip.place(core), :] = core
                del core
            del cut, reached  # before the next strip is made
        if result is not None:
            return result
        known.append(tally.statistics())


def _kept(strip: "_Strip", core: Tensor, source: Tensor, result: Tensor | None, is_ours: bool) -> Tensor:
    """Where the strips' results go: a map that is there already, else `source` where it is ours and as large."""
    if result is not None:
        return result
    rows = source.shape[-2] * core.shape[-2] // strip.rows
    fits = core.shape[1] == source.shape[1] and rows == source.shape[-2] and core.dtype == source.dtype
    return source if is_ours and fits else _blank(core, rows)


def _blank(like: Tensor, rows: int) -> Tensor:
    layout = torch.channels_last if like.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    size = (like.shape[0], like.shape[1], rows, like.shape[3])
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=layout)


def _advanced(stretch: Stretch, x: Tensor, known: Sequence[Statistics]) -> tuple[nn.GroupNorm | None, Tensor]:
    """Walk until a normalisation whose statistics are not known: its layer and input; or to the end: None, result."""
    answers = iter(known)
    for piece in stretch:
        walk = piece.walk(x)
        try:
            layer, x = next(walk)
            while (found := next(answers, None)) is not None:
                normed = _normalised(layer, x, found)
                del x  # a strip's map less while the walk goes on, and below while the next is normalised
                layer, x = walk.send(normed)
                del normed
        except StopIteration as end:
            x = end.value
        else:
            walk.close()
            return layer, x
    return None, x


def _normalised(layer: nn.GroupNorm, x: Tensor, found: Statistics) -> Tensor:
    """What `layer` makes of `x` with the statistics of the whole picture, per group [G]."""
    mean, variance = (moment.repeat_interleave(layer.num_channels // layer.num_groups).to(x.device) for moment in found)
    return F.batch_norm(x, mean, variance, layer.weight.float(), layer.bias.float(), eps=layer.eps)


@dataclass
class _Tally:
    """Mean and variance of groups over strips, joined pairwise in float64 (Chan 1983)."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    deviations: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, x: Tensor, layer: nn.GroupNorm) -> None:
        """Take in a strip [1, C, h, W]."""
        groups = x.float().unflatten(1, (layer.num_groups, -1))
        variance, mean = (exact(moment[0]) for moment in torch.var_mean(groups, dim=(2, 3, 4), correction=0))
        added = groups[0, 0].numel()
        total = self.count + added
        change = mean - self.mean.to(mean.device)
        self.deviations = self.deviations.to(mean.device) + variance * added + change**2 * (self.count * added / total)
        self.mean = self.mean.to(mean.device) + change * (added / total)
        self.count = total

    def statistics(self) -> Statistics:
        """Mean and variance per group [G], float32."""
        return self.mean.float(), (self.deviations / self.count).float()


@dataclass(frozen=True)
class _Strip:
    """Rows `first` to `end` of a stretch's input; `halo` rows beside them are looked at, as far as there are any."""

    first: int
    end: int
    above: int
    below: int
    halo: int

    @property
    def rows(self) -> int:
        """Without those beside it."""
        return self.end - self.first

    def cut(self, source: Tensor, over: Tensor | None = None) -> Tensor:
        """The rows, and those beside them; `over` in place of those above, where they were overwritten."""
        if over is None:
            return source[..., self.first - self.above : self.end + self.below, :]
        return torch.cat((over, source[..., self.first : self.end + self.below, :]), dim=-2)

    def last(self, cut: Tensor) -> Tensor:
        """Of what was cut, the rows that the next strip looks at above its own."""
        end = self.above + self.rows
        return cut[..., end - self.halo : end, :].clone()

    def core(self, x: Tensor) -> Tensor:
        """What became of the rows themselves, in a map of any resolution."""
        grows = x.shape[-2] / (self.above + self.rows + self.below)
        top = round(self.above * grows)
        return x[..., top : top + round(self.rows * grows), :]

    def place(self, core: Tensor) -> slice:
        """Where the core lies in a map of the whole picture."""
        grows = core.shape[-2] / self.rows
        return slice(round(self.first * grows), round(self.end * grows))


def _strips(stretch: Stretch, source: Tensor) -> Iterator[_Strip]:
    """The picture in strips: of an even number of rows, so that halving never splits a pair."""
    height, width = source.shape[-2:]
    growths = list(accumulate((piece.grows for piece in stretch), lambda a, b: a * b, initial=1.0))
    halo = 2 * math.ceil(sum(piece.reach / before for piece, before in zip(stretch, growths, strict=False)) / 2)
    row = width * max(growths) ** 2 * max(piece.channels for piece in stretch)
    rows = max(halo, int(min(STRIP_ELEMENTS / row, height / FEWEST_STRIPS)) // 2 * 2)
    for first in range(0, height, rows):
        end = min(first + rows, height)
        yield _Strip(first, end, min(halo, first), min(halo, height - end), halo)
