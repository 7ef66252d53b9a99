"""Runs a fragment shader for all pixels at once: a value is a tensor over the picture, a branch is a mask.

Numbers are float32, whole numbers 32 bits wide. Where every pixel agrees on a condition only its branch runs; else both
run, and each writes where its mask is set. A loop runs until no pixel is left in it. The picture's origin is at the
bottom left, as in OpenGL; textures are read linearly and end in their edges.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes.support.glsl_parse import Function, Shader, Tree

__all__ = ["GlslValue", "rendered"]

DEADLINE_S = 60.0
DEEPEST_CALL = 30
LETTERS = {letter: at for letters in ("xyzw", "rgba", "stpq") for at, letter in enumerate(letters)}
DTYPES = {"float": torch.float32, "int": torch.int64, "uint": torch.int64, "bool": torch.bool}
PREFIXES = {"": "float", "i": "int", "u": "uint", "b": "bool"}
WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class GlslValue:
    """A value of every pixel, [..., components], or of all alike, [components]; a texture is [height, width, 4]."""

    base: str
    data: Tensor

    @property
    def size(self) -> int:
        """How many components."""
        return int(self.data.shape[-1])


Mask = Tensor | None
"""Where a statement acts, [height, width, 1]; None for everywhere."""


@dataclass(slots=True)
class _Frame:
    """A function at work: its names by block, and the pixels that have left it, or the loop they are in."""

    scopes: list[dict[str, GlslValue]]
    result: GlslValue | None = None
    returned: Mask = None
    broken: Mask = None
    continued: Mask = None


def rendered(
    shader: Shader, uniforms: Mapping[str, GlslValue], height: int, width: int, device: torch.device
) -> list[Tensor]:
    """The colours by location, [height, width, 4] each, of one pass over a picture."""
    with torch.inference_mode():
        return _Machine(shader, uniforms, height, width, device).colours()


class _Machine:
    """One pass of a shader."""

    def __init__(
        self, shader: Shader, uniforms: Mapping[str, GlslValue], height: int, width: int, device: torch.device
    ) -> None:
        self.shader, self.device, self.size = shader, device, (height, width)
        self.ends = time.monotonic() + DEADLINE_S
        self.calls = 0
        self.frame = _Frame([{}])
        rows, columns = (torch.arange(count, device=device, dtype=torch.float32) + 0.5 for count in (height, width))
        places = torch.stack([columns.expand(height, width), (height - rows)[:, None].expand(height, width)], -1)
        self.names = self.frame.scopes[0]
        for name, kind in shader.uniforms.items():
            self.names[name] = uniforms.get(name, self._nothing(kind))
        self.names["v_texCoord"] = GlslValue("float", places / torch.tensor([width, height], device=device))
        beyond = torch.tensor([0.5, 1.0], device=device).expand(height, width, 2)
        self.names["gl_FragCoord"] = GlslValue("float", torch.cat([places, beyond], -1))
        for name in shader.outputs.values():
            self.names[name] = GlslValue("float", torch.zeros(height, width, 4, device=device))
        for constant in shader.constants:
            self._run(constant, None)

    def colours(self) -> list[Tensor]:
        """Run main, and read the outputs."""
        self._call(self.shader.functions["main"][0], [], [], None)
        blank = torch.zeros(*self.size, 4, device=self.device)
        outputs = self.shader.outputs
        last = max(outputs, default=0)
        found = [self.names[outputs[at]].data if at in outputs else blank for at in range(last + 1)]
        return [colour.expand(*self.size, 4) for colour in found]

    def _nothing(self, kind: str) -> GlslValue:
        if kind == "sampler2D":
            return GlslValue("sampler2D", torch.zeros(1, 1, 4, device=self.device))
        base, size = _kind(kind)
        return GlslValue(base, torch.zeros(size, dtype=DTYPES[base], device=self.device))

    # -- statements ------------------------------------------------------------------------------------------------

    def _block(self, statements: Sequence[Tree], mask: Mask) -> None:
        self.frame.scopes.append({})
        for statement in statements:
            left = self._left(mask)
            if left is not None and not bool(left.any()):
                break
            self._run(statement, left)
        self.frame.scopes.pop()

    def _left(self, mask: Mask) -> Mask:
        """The pixels of a mask that have not left the function, the loop or this turn."""
        for gone in (self.frame.returned, self.frame.broken, self.frame.continued):
            if gone is not None:
                mask = ~gone if mask is None else mask & ~gone
        return mask

    def _run(self, statement: Tree, mask: Mask) -> None:
        if time.monotonic() > self.ends:
            raise BadValue("fragment_shader", f"more than {DEADLINE_S:g} s", "a shader that ends sooner")
        kind = statement[0]
        if kind == "block":
            self._block(statement[1], mask)
        elif kind == "do":
            self._value(statement[1], mask)
        elif kind == "variables":
            for name, first in statement[2]:
                value = self._nothing(statement[1]) if first is None else self._value(first, mask)
                self.frame.scopes[-1][name] = _converted(value, *_kind(statement[1]))
        elif kind == "if":
            self._branch(statement, mask)
        elif kind == "for":
            self._loop(statement, mask)
        elif kind == "return":
            self._leave(None if statement[1] is None else self._value(statement[1], mask), mask)
        else:
            place = "broken" if kind == "break" else "continued"
            setattr(self.frame, place, self._joined(getattr(self.frame, place), mask))

    def _branch(self, statement: Tree, mask: Mask) -> None:
        asked = self._value(statement[1], mask).data
        if asked.numel() == 1:
            self._block([statement[2] if bool(asked) else statement[3]], mask)
            return
        for condition, branch in (asked, statement[2]), (~asked, statement[3]):
            acting = condition if mask is None else condition & mask
            if bool(acting.any()):
                self._block([branch], acting)

    def _loop(self, statement: Tree, mask: Mask) -> None:
        frame = self.frame
        before = frame.broken, frame.continued
        frame.broken, frame.continued = None, None
        frame.scopes.append({})
        self._run(statement[1], mask)
        acting = mask
        while True:
            left = self._left(acting)
            if left is not None and not bool(left.any()):
                break
            asked = self._value(statement[2], left).data
            if asked.numel() == 1:
                if not bool(asked):
                    break
            else:
                acting = asked if left is None else asked & left
                if not bool(acting.any()):
                    break
            self._block([statement[4]], acting)
            frame.continued = None
            if statement[3] is not None:
                self._value(statement[3], self._left(acting))
        frame.scopes.pop()
        frame.broken, frame.continued = before

    def _leave(self, value: GlslValue | None, mask: Mask) -> None:
        frame = self.frame
        if value is not None:
            frame.result = value if frame.result is None else _where(mask, value, frame.result)
        frame.returned = self._joined(frame.returned, mask)

    def _joined(self, gone: Mask, mask: Mask) -> Tensor:
        more = torch.ones(1, 1, 1, dtype=torch.bool, device=self.device) if mask is None else mask
        return more if gone is None else gone | more

    # -- names -----------------------------------------------------------------------------------------------------

    def _scope(self, name: str, line: int) -> dict[str, GlslValue]:
        for scope in (*reversed(self.frame.scopes), self.names):
            if name in scope:
                return scope
        raise BadValue(f"fragment_shader, line {line}", name, "a name that is declared")

    def _assign(self, target: Tree, value: GlslValue, mask: Mask, line: int) -> None:
        kind = target[0]
        if kind == "name":
            scope = self._scope(target[1], line)
            old = scope[target[1]]
            scope[target[1]] = _where(mask, _converted(value, old.base, old.size), old)
        elif kind in ("swizzle", "index"):
            whole = self._value(target[1], mask)
            places = self._places(target, whole, mask)
            shape = torch.broadcast_shapes(whole.data.shape[:-1], value.data.shape[:-1])
            parts = list(whole.data.expand(*shape, whole.size).unbind(-1))
            for at, part in zip(places, _converted(value, whole.base, len(places)).data.unbind(-1), strict=True):
                parts[at] = part.expand(shape)
            self._assign(target[1], GlslValue(whole.base, torch.stack(parts, -1)), mask, line)
        else:
            raise BadValue(f"fragment_shader, line {line}", "an assignment to a value", "one to a name")

    def _places(self, target: Tree, whole: GlslValue, mask: Mask) -> list[int]:
        if target[0] == "index":
            at = self._value(target[2], mask).data
            if at.numel() != 1 or not 0 <= int(at) < whole.size:
                raise BadValue(
                    f"fragment_shader, line {target[3]}", "an index", "one for all pixels, inside the vector"
                )
            return [int(at)]
        places = [LETTERS.get(letter, 9) for letter in target[2]]
        if not places or max(places) >= whole.size or len(places) > 4:
            raise BadValue(f"fragment_shader, line {target[3]}", f".{target[2]}", f"components of {whole.size}")
        return places

    # -- expressions -----------------------------------------------------------------------------------------------

    def _value(self, tree: Tree, mask: Mask) -> GlslValue:
        match tree[0]:
            case "number":
                return GlslValue(tree[2], torch.tensor([tree[1]], dtype=DTYPES[tree[2]], device=self.device))
            case "name":
                return self._scope(tree[1], tree[2])[tree[1]]
            case "swizzle" | "index":
                whole = self._value(tree[1], mask)
                return GlslValue(whole.base, whole.data[..., self._places(tree, whole, mask)])
            case "unary":
                return _unary(tree[1], self._value(tree[2], mask))
            case "binary":
                return _binary(tree[1], self._value(tree[2], mask), self._value(tree[3], mask), tree[4])
            case "choose":
                asked = self._value(tree[1], mask)
                if asked.data.numel() == 1:
                    return self._value(tree[2] if bool(asked.data) else tree[3], mask)
                return _where(asked.data, self._value(tree[2], mask), self._value(tree[3], mask))
            case "assign":
                value = self._value(tree[3], mask)
                if tree[1]:
                    value = _binary(tree[1], self._value(tree[2], mask), value, tree[4])
                self._assign(tree[2], value, mask, tree[4])
                return value
            case "after":
                old = self._value(tree[2], mask)
                one = GlslValue(old.base, torch.ones(1, dtype=DTYPES[old.base], device=self.device))
                self._assign(tree[2], _binary(tree[1], old, one, tree[3]), mask, tree[3])
                return old
            case "then":
                self._value(tree[1], mask)
                return self._value(tree[2], mask)
        return self._called(tree, mask)

    def _called(self, tree: Tree, mask: Mask) -> GlslValue:
        _, name, given, line = tree
        values = [self._value(tree, mask) for tree in given]
        if name in self.shader.functions:
            fitting = [one for one in self.shader.functions[name] if _fits(one, values)]
            if not fitting:
                raise BadValue(
                    f"fragment_shader, line {line}", f"{name} of {len(given)}", "arguments it is declared with"
                )
            return self._call(fitting[0], given, values, mask)
        try:
            if _is_type(name):
                return _constructed(name, values)
            if name not in BUILT_IN:
                raise BadValue(f"fragment_shader, line {line}", name, "a function of the shader or of GLSL ES 3.00")
            return BUILT_IN[name](*values)
        except (TypeError, IndexError, RuntimeError) as error:
            raise BadValue(f"fragment_shader, line {line}", f"{name}({len(given)} arguments)", str(error)) from error

    def _call(self, function: Function, given: Sequence[Tree], values: Sequence[GlslValue], mask: Mask) -> GlslValue:
        self.calls += 1
        if self.calls > DEEPEST_CALL:
            raise BadValue(
                "fragment_shader", function.name, f"functions at most {DEEPEST_CALL} calls deep, none in itself"
            )
        own: dict[str, GlslValue] = {}
        for parameter, value in zip(function.parameters, values, strict=True):
            is_texture = parameter.type == "sampler2D"
            own[parameter.name] = value if is_texture else _converted(value, *_kind(parameter.type))
        outer, self.frame = self.frame, _Frame([own])
        self._block(function.body, mask)
        made, self.frame = self.frame, outer
        for parameter, tree in zip(function.parameters, given, strict=True):
            if parameter.way in ("out", "inout"):
                self._assign(tree, own[parameter.name], mask, 0)
        self.calls -= 1
        return made.result if made.result is not None else GlslValue("bool", torch.zeros(1, dtype=torch.bool))


def _fits(function: Function, values: Sequence[GlslValue]) -> bool:
    """Whether a function takes values of these types."""
    if len(function.parameters) != len(values):
        return False
    wanted = [_kind(parameter.type) for parameter in function.parameters]
    return all(
        value.base == base and (base == "sampler2D" or value.size == size)
        for value, (base, size) in zip(values, wanted, strict=True)
    )


def _is_type(name: str) -> bool:
    return name in DTYPES or (name[-4:-1] == "vec" and name[-1] in "234" and name[:-4] in PREFIXES)


def _kind(name: str) -> tuple[str, int]:
    """Base and number of components of a type."""
    return (PREFIXES[name[:-4]], int(name[-1])) if "vec" in name else (name, 1)


def _cast(base: str, data: Tensor, source: str) -> Tensor:
    if base == "bool":
        return data != 0
    if base == "float":
        return data.to(torch.float32)
    whole = data.to(torch.int64) if source != "float" else data.nan_to_num().clamp(-(2.0**31), 2.0**32).to(torch.int64)
    return _wrapped(base, whole)


def _wrapped(base: str, data: Tensor) -> Tensor:
    """Whole numbers in 32 bits."""
    if base == "uint":
        return data & WORD
    return ((data + 2**31) & WORD) - 2**31 if base == "int" else data


def _converted(value: GlslValue, base: str, size: int) -> GlslValue:
    """A value for a place of its own type; another number of components is refused."""
    if value.size not in (1, size):
        raise BadValue("fragment_shader", f"a value of {value.size} components", f"{size}")
    data = value.data if value.base == base else _cast(base, value.data, value.base)
    return GlslValue(base, data.expand(*data.shape[:-1], size))


def _constructed(name: str, values: Sequence[GlslValue]) -> GlslValue:
    base, size = _kind(name)
    shape = torch.broadcast_shapes(*(value.data.shape[:-1] for value in values))
    parts = [part.expand(shape) for value in values for part in _cast(base, value.data, value.base).unbind(-1)]
    if len(parts) == 1:
        parts = parts * size
    if len(parts) < size:
        raise TypeError(f"{name} needs {size} components")
    return GlslValue(base, torch.stack(parts[:size], -1))


def _where(mask: Mask, one: GlslValue, other: GlslValue) -> GlslValue:
    return one if mask is None else GlslValue(one.base, torch.where(mask, one.data, other.data.to(one.data.dtype)))


def _unary(mark: str, value: GlslValue) -> GlslValue:
    if mark == "!":
        return GlslValue("bool", ~value.data)
    if mark == "~":
        return GlslValue(value.base, _wrapped(value.base, ~value.data))
    return GlslValue(value.base, _wrapped(value.base, -value.data)) if mark == "-" else value


COMPARED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "<": torch.lt, ">": torch.gt, "<=": torch.le, ">=": torch.ge,
}  # fmt: skip
LOGICAL: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "&&": torch.logical_and, "||": torch.logical_or, "^^": torch.logical_xor,
}  # fmt: skip
WHOLE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "&": torch.bitwise_and, "|": torch.bitwise_or, "^": torch.bitwise_xor,
    "<<": lambda a, b: a << (b & 31), ">>": lambda a, b: a >> (b & 31),
}  # fmt: skip


def _binary(mark: str, one: GlslValue, other: GlslValue, line: int) -> GlslValue:
    if mark in LOGICAL:
        return GlslValue("bool", LOGICAL[mark](one.data, other.data))
    if one.base != other.base and mark not in ("<<", ">>"):
        raise BadValue(f"fragment_shader, line {line}", f"{one.base} {mark} {other.base}", "values of one type")
    if 1 not in (one.size, other.size) and one.size != other.size:
        raise BadValue(f"fragment_shader, line {line}", f"{one.size} {mark} {other.size} components", "as many of each")
    a, b = one.data, other.data
    if mark in ("==", "!="):
        same = (a == b).all(-1, keepdim=True)
        return GlslValue("bool", same if mark == "==" else ~same)
    if mark in COMPARED:
        return GlslValue("bool", COMPARED[mark](a, b))
    if mark in WHOLE:
        return GlslValue(one.base, _wrapped(one.base, WHOLE[mark](a, b)))
    return GlslValue(one.base, _wrapped(one.base, _arithmetic(mark, a, b, is_whole=one.base != "float")))


def _arithmetic(mark: str, a: Tensor, b: Tensor, *, is_whole: bool) -> Tensor:
    if mark == "+":
        return a + b
    if mark == "-":
        return a - b
    if mark == "*":
        return a * b
    if not is_whole:
        return a / b if mark == "/" else torch.fmod(a, b)
    safe = torch.where(b == 0, torch.ones_like(b), b)  # by nothing is undefined in GLSL
    return torch.div(a, safe, rounding_mode="trunc") if mark == "/" else torch.fmod(a, safe)


# -- functions of the language ----------------------------------------------------------------------------------------


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
