"""Runs a fragment shader for all pixels at once: a value is a tensor over the picture, a branch is a mask.

Where every pixel agrees on a condition only its branch runs; else both run, and each writes where its mask is set. A
loop runs until no pixel is left in it. Values are glsl_values.py's, the language's functions glsl_functions.py's.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes.support.glsl_functions import BUILT_IN
from sigmagraph.nodes.support.glsl_parse import Function, Shader, Tree
from sigmagraph.nodes.support.glsl_values import (
    DTYPES,
    GlslValue,
    Mask,
    binary,
    chosen,
    constructed,
    converted,
    is_type,
    kind_of,
    unary,
)

__all__ = ["rendered"]

DEADLINE_S = 60.0
DEEPEST_CALL = 30
LETTERS = {letter: at for letters in ("xyzw", "rgba", "stpq") for at, letter in enumerate(letters)}


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
        base, size = kind_of(kind)
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
                self.frame.scopes[-1][name] = converted(value, *kind_of(statement[1]))
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
            frame.result = value if frame.result is None else chosen(mask, value, frame.result)
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
            scope[target[1]] = chosen(mask, converted(value, old.base, old.size), old)
        elif kind in ("swizzle", "index"):
            whole = self._value(target[1], mask)
            places = self._places(target, whole, mask)
            shape = torch.broadcast_shapes(whole.data.shape[:-1], value.data.shape[:-1])
            parts = list(whole.data.expand(*shape, whole.size).unbind(-1))
            for at, part in zip(places, converted(value, whole.base, len(places)).data.unbind(-1), strict=True):
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
                return unary(tree[1], self._value(tree[2], mask))
            case "binary":
                return binary(tree[1], self._value(tree[2], mask), self._value(tree[3], mask), tree[4])
            case "choose":
                asked = self._value(tree[1], mask)
                if asked.data.numel() == 1:
                    return self._value(tree[2] if bool(asked.data) else tree[3], mask)
                return chosen(asked.data, self._value(tree[2], mask), self._value(tree[3], mask))
            case "assign":
                value = self._value(tree[3], mask)
                if tree[1]:
                    value = binary(tree[1], self._value(tree[2], mask), value, tree[4])
                self._assign(tree[2], value, mask, tree[4])
                return value
            case "after":
                old = self._value(tree[2], mask)
                one = GlslValue(old.base, torch.ones(1, dtype=DTYPES[old.base], device=self.device))
                self._assign(tree[2], binary(tree[1], old, one, tree[3]), mask, tree[3])
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
            if is_type(name):
                return constructed(name, values)
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
            own[parameter.name] = value if is_texture else converted(value, *kind_of(parameter.type))
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
    wanted = [kind_of(parameter.type) for parameter in function.parameters]
    return all(
        value.base == base and (base == "sampler2D" or value.size == size)
        for value, (base, size) in zip(values, wanted, strict=True)
    )
