"""Formulas of numbers, read as a syntax tree and evaluated node by node: nothing of Python's is called.

What is allowed is listed here: numbers, names, lists, arithmetic, comparisons, `and`, `or`, `not`, `x if c else y`, and
the functions of `FUNCTIONS`. Bounds on length, depth, steps and the size of whole numbers end every formula at once.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.errors import BadValue

__all__ = ["FUNCTIONS", "evaluate"]

MAX_CHARACTERS, MAX_STEPS, MAX_BITS = 10_000, 10_000, 4096
Number = int | float | bool


def _power(base: Number, exponent: Number) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        bits = max(abs(base).bit_length(), 1) * exponent
        if abs(base) > 1 and bits > MAX_BITS:
            raise OverflowError(f"a whole number of {bits:,} bits")
    return base**exponent


def _rounded(number: Number, digits: int | None = None) -> Any:
    """Python's own, but beyond a number's digits nothing is computed: of a whole one it would be 10 to that power."""
    if digits is None or not isinstance(number, int):
        return round(number, digits)
    return 0 if digits < -MAX_BITS else round(number, digits)


BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "abs": abs,
    "round": _rounded,
    "pow": _power,
    "sqrt": math.sqrt,
    "ceil": math.ceil,
    "floor": math.floor,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "int": int,
    "float": float,
}


def evaluate(expression: str, names: Mapping[str, Any]) -> Number:
    """The value of a formula, a finite number or a boolean. Raises `BadValue` for everything else."""
    if len(expression) > MAX_CHARACTERS:
        raise BadValue("expression", f"{len(expression):,} characters", f"at most {MAX_CHARACTERS:,}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        found = _Evaluation(names).value(tree.body)
        if isinstance(found, int | float) and math.isfinite(found):
            return found
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise BadValue("expression", expression, "a formula such as 'a + b'") from error
    except (ArithmeticError, ValueError, TypeError) as error:
        raise BadValue("expression", expression, f"a formula with a value for these inputs ({error})") from error
    raise BadValue("expression", expression, f"a formula whose value is a finite number, not {found!r}")


@dataclass
class _Evaluation:
    """One walk over a syntax tree."""

    names: Mapping[str, Any]
    steps: int = 0

    def value(self, node: ast.AST) -> Any:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS:,} steps")
        return self._bounded(self._of(node))

    def _of(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self.value(item) for item in items]
            case ast.Subscript(value=held, slice=place):
                return self._item(self.value(held), self.value(place))
            case ast.BinOp(left=left, op=kind, right=right) if type(kind) in BINARY:
                return BINARY[type(kind)](*self._numbers([self.value(left), self.value(right)]))
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in UNARY:
                return UNARY[type(sign)](self._numbers([self.value(operand)])[0])
            case _:
                return self._logic(node)

    def _logic(self, node: ast.AST) -> Any:
        match node:
            case ast.BoolOp(op=ast.And(), values=parts):
                return self._until(parts, False)
            case ast.BoolOp(op=ast.Or(), values=parts):
                return self._until(parts, True)
            case ast.IfExp(test=test, body=body, orelse=otherwise):
                return self.value(body if self.value(test) else otherwise)
            case ast.Compare(left=first, ops=kinds, comparators=others) if all(
                type(kind) in COMPARISONS for kind in kinds
            ):
                values = [self.value(one) for one in (first, *others)]
                pairs = zip(kinds, values, values[1:], strict=False)
                return all(COMPARISONS[type(kind)](one, other) for kind, one, other in pairs)
            case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*[self.value(one) for one in given])
            case ast.Name(id=name):
                known = sorted({*self.names, *FUNCTIONS})
                raise BadValue("expression", name, f"a name among {', '.join(known)}")
            case _:
                raise BadValue(
                    "expression", ast.unparse(node)[:80], "numbers, names, arithmetic, comparisons and functions"
                )

    def _until(self, parts: Sequence[ast.expr], stop: bool) -> Any:
        found: Any = not stop
        for part in parts:
            found = self.value(part)
            if bool(found) is stop:
                break
        return found

    def _item(self, held: Any, place: Any) -> Any:
        if not isinstance(held, list) or not isinstance(place, int) or not -len(held) <= place < len(held):
            raise ValueError(f"no item {place!r}")
        return held[place]

    def _numbers(self, values: list[Any]) -> list[Any]:
        for value in values:
            if not isinstance(value, int | float):
                raise TypeError(f"{type(value).__name__} is not a number")
        return values

    def _bounded(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise OverflowError(f"a whole number of {value.bit_length():,} bits")
        if isinstance(value, complex):
            raise ValueError("a complex number")
        return value
