"""The functions of GLSL ES 3.00 that a fragment shader may call, by name, over the whole picture at once.

The picture's origin is at the bottom left, as in OpenGL; textures are read linearly and end in their edges.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.nodes.support.glsl_values import COMPARED, WORD, GlslValue

__all__ = ["BUILT_IN"]


def _each(function: Callable[..., Tensor]) -> Callable[..., GlslValue]:
    """A function of components; numbers take the type of the first that is given."""
    return lambda *values: GlslValue(values[0].base, function(*(value.data for value in values)))


def _minmax(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., GlslValue]:
    return _each(lambda a, b: function(*torch.broadcast_tensors(a, b)))


def _smoothstep(low: Tensor, high: Tensor, x: Tensor) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _mix(one: GlslValue, other: GlslValue, share: GlslValue) -> GlslValue:
    if share.base == "bool":
        return GlslValue(one.base, torch.where(share.data, other.data, one.data))
    return GlslValue(one.base, one.data * (1.0 - share.data) + other.data * share.data)


def _dot(one: GlslValue, other: GlslValue) -> GlslValue:
    return GlslValue("float", (one.data * other.data).sum(-1, keepdim=True))


def _length(value: GlslValue) -> GlslValue:
    return GlslValue("float", value.data.square().sum(-1, keepdim=True).sqrt())


def _compared(mark: str) -> Callable[[GlslValue, GlslValue], GlslValue]:
    return lambda one, other: GlslValue("bool", COMPARED[mark](one.data, other.data))


def _texture(texture: GlslValue, at: GlslValue, *_: GlslValue) -> GlslValue:
    """Linear, ending in the edges; the origin is at the bottom left."""
    places = at.data.expand(*at.data.shape[-3:-1], 2) if at.data.ndim >= 3 else at.data.reshape(1, 1, 2)
    grid = torch.stack([places[..., 0] * 2.0 - 1.0, 1.0 - places[..., 1] * 2.0], -1)[None]
    image = texture.data.movedim(-1, 0)[None]
    read = F.grid_sample(image, grid, "bilinear", padding_mode="border", align_corners=False)[0].movedim(0, -1)
    return GlslValue("float", read if at.data.ndim >= 3 else read.reshape(4))


def _fetched(texture: GlslValue, at: GlslValue, *_: GlslValue) -> GlslValue:
    height, width = texture.data.shape[:2]
    column = at.data[..., 0].clamp(0, width - 1)
    row = height - 1 - at.data[..., 1].clamp(0, height - 1)
    return GlslValue("float", texture.data[row, column])


def _size(texture: GlslValue, *_: GlslValue) -> GlslValue:
    height, width = texture.data.shape[:2]
    return GlslValue("int", torch.tensor([width, height], device=texture.data.device))


def _bits(value: GlslValue) -> GlslValue:
    return GlslValue("uint", value.data.contiguous().view(torch.int32).to(torch.int64) & WORD)


def _cross(one: GlslValue, other: GlslValue) -> GlslValue:
    return GlslValue("float", torch.linalg.cross(*torch.broadcast_tensors(one.data, other.data)))


BUILT_IN: Mapping[str, Callable[..., GlslValue]] = {
    "texture": _texture, "textureLod": _texture, "texelFetch": _fetched, "textureSize": _size,
    "abs": _each(torch.abs), "sign": _each(torch.sign), "floor": _each(torch.floor), "ceil": _each(torch.ceil),
    "trunc": _each(torch.trunc), "round": _each(torch.round), "roundEven": _each(torch.round),
    "fract": _each(lambda x: x - x.floor()), "mod": _each(lambda x, y: x - y * (x / y).floor()),
    "sqrt": _each(torch.sqrt), "inversesqrt": _each(torch.rsqrt), "exp": _each(torch.exp), "exp2": _each(torch.exp2),
    "log": _each(torch.log), "log2": _each(torch.log2), "pow": _each(lambda x, y: torch.pow(x, y)),
    "sin": _each(torch.sin), "cos": _each(torch.cos), "tan": _each(torch.tan), "asin": _each(torch.asin),
    "acos": _each(torch.acos), "sinh": _each(torch.sinh), "cosh": _each(torch.cosh), "tanh": _each(torch.tanh),
    "atan": _each(lambda y, x=None: torch.atan(y) if x is None else torch.atan2(*torch.broadcast_tensors(y, x))),
    "radians": _each(lambda x: x * (math.pi / 180.0)), "degrees": _each(lambda x: x * (180.0 / math.pi)),
    "min": _minmax(torch.minimum), "max": _minmax(torch.maximum),
    "clamp": _each(lambda x, low, high: torch.minimum(*torch.broadcast_tensors(
        torch.maximum(*torch.broadcast_tensors(x, low)), high))),
    "step": lambda edge, x: GlslValue("float", (x.data >= edge.data).to(torch.float32)),
    "smoothstep": lambda low, high, x: GlslValue("float", _smoothstep(low.data, high.data, x.data)),
    "mix": _mix, "dot": _dot, "length": _length, "cross": _cross,
    "distance": lambda one, other: _length(GlslValue("float", one.data - other.data)),
    "normalize": lambda value: GlslValue("float", value.data / _length(value).data),
    "reflect": lambda i, n: GlslValue("float", i.data - 2.0 * _dot(n, i).data * n.data),
    "lessThan": _compared("<"), "greaterThan": _compared(">"), "lessThanEqual": _compared("<="),
    "greaterThanEqual": _compared(">="), "equal": lambda a, b: GlslValue("bool", a.data == b.data),
    "notEqual": lambda a, b: GlslValue("bool", a.data != b.data), "not": lambda a: GlslValue("bool", ~a.data),
    "any": lambda a: GlslValue("bool", a.data.any(-1, keepdim=True)),
    "all": lambda a: GlslValue("bool", a.data.all(-1, keepdim=True)),
    "isnan": lambda a: GlslValue("bool", a.data.isnan()), "isinf": lambda a: GlslValue("bool", a.data.isinf()),
    "floatBitsToUint": _bits,
}  # fmt: skip
