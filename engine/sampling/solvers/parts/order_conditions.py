"""Proof that a tableau has its order, in rational arithmetic: which condition breaks, or nothing.

Explicit: sum_i b_i Phi_i(t) = 1 / gamma(t) for every rooted tree t of at most `order` nodes (Butcher 1963).
Exponential: the same over trees whose nodes are the estimate's or the linear part's (Berland, Owren & Skaflestad
2005), with the weights' power series in z; and stiff conditions as in Hochbruck & Ostermann 2005, table 1, the last
order's weights at z = 0. Two sums of phi functions are equal if their first SERIES coefficients are: times z^3 they
are exponential polynomials with fewer terms than that. Collocation: the node polynomial is orthogonal to all of
degree below order - s.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from typing import Any, NamedTuple, TypeAlias

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.solvers.parts.tableaux import Collocation, Explicit, Exponential, Row, Weight

__all__ = ["proven"]

SERIES = 16
Series: TypeAlias = tuple[Fraction, ...]
ZERO = Fraction(0)


class RootedTree(NamedTuple):
    """A node with `linear` nodes of the linear part below it, and its children; without `is_estimate` only those."""

    linear: int
    is_estimate: bool
    children: tuple["RootedTree", ...]

    @property
    def size(self) -> int:
        """Nodes."""
        return self.linear + self.is_estimate + sum(child.size for child in self.children)

    @property
    def density(self) -> int:
        """gamma: the product over all nodes of the size of what grows from them."""
        own = math.prod(self.size - place for place in range(self.linear + self.is_estimate))
        return own * math.prod(child.density for child in self.children)

    def __str__(self) -> str:
        return "L" * self.linear + (f"[{' '.join(map(str, self.children))}]" if self.is_estimate else "")


@cache
def trees(size: int, with_linear: bool) -> tuple[RootedTree, ...]:
    """Every tree of a size; without the linear part they are Butcher's rooted trees."""
    found = [
        RootedTree(linear, True, children)
        for linear in range(size if with_linear else 1)
        for children in _forests(size - linear - 1, with_linear)
    ]
    return (*found, *([RootedTree(size, False, ())] if with_linear else []))


def _forests(size: int, with_linear: bool) -> Iterator[tuple[RootedTree, ...]]:
    """Every multiset of trees of a size in all."""
    for parts in _partitions(size, size):
        chosen: list[tuple[RootedTree, ...]] = [()]
        for part in sorted(set(parts)):
            more = list(combinations_with_replacement(trees(part, with_linear), parts.count(part)))
            chosen = [(*one, *other) for one in chosen for other in more]
        yield from chosen


def _partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Ways to write a number as a sum, largest part first."""
    if total == 0:
        yield ()
    for part in range(min(total, largest), 0, -1):
        yield from ((part, *rest) for rest in _partitions(total - part, part))


class Expanded(NamedTuple):
    """A tableau as power series: `stages[i][j]` and `weights[j]` are coefficients of z^0, z^1, ..."""

    nodes: Row
    stages: Sequence[Sequence[Series]]
    weights: Sequence[Series]


def expanded(tableau: Explicit | Exponential) -> Expanded:
    """The whole square of weights, zeros and first column included."""
    count = len(tableau.nodes)
    none = (ZERO,) * SERIES
    if isinstance(tableau, Explicit):
        rows = [(), *tableau.stages]
        square = [[_constant(one[j]) if j < len(one) else none for j in range(count)] for one in rows]
        return Expanded(tableau.nodes, square, [_constant(one) for one in tableau.weights])
    later: list[Any] = [{}, *tableau.stages]
    square = [_filled(given, node, count) for given, node in zip(later, tableau.nodes, strict=True)]
    return Expanded(tableau.nodes, square, _filled(tableau.weights, Fraction(1), count))


def _filled(given: Any, node: Fraction, count: int) -> list[Series]:
    """A row of an exponential tableau; the first estimate has what is left of node * phi_1(node z)."""
    none = (ZERO,) * SERIES
    later = [series(given[j]) if j in given else none for j in range(1, count)]
    whole = series(((node, 1, node),)) if node else none
    first = tuple(all_of - sum(rest) for all_of, *rest in zip(whole, *later, strict=True))
    return [first, *later]


def _constant(value: Fraction) -> Series:
    return (value, *(ZERO,) * (SERIES - 1))


def series(weight: Weight) -> Series:
    """Coefficients of sum factor * phi_k(share z), phi_k(z) = sum_m z^m / (m + k)!."""
    return tuple(
        sum((factor * share**m / math.factorial(m + k) for factor, k, share in weight), ZERO) for m in range(SERIES)
    )


def proven(tableau: Explicit | Exponential | Collocation) -> None:
    """Nothing where a tableau has the order it declares; else an error that names the condition it breaks."""
    if isinstance(tableau, Collocation):
        _collocation(tableau)
        return
    if isinstance(tableau, Explicit):
        _explicit_shape(tableau)
    known = expanded(tableau)
    is_exponential = isinstance(tableau, Exponential)
    _classical(tableau.name, known, tableau.order, is_exponential)
    if isinstance(tableau, Exponential):
        _stiff(tableau, known)
    elif tableau.embedded:
        weights = [_constant(one) for one in tableau.embedded]
        _classical(f"{tableau.name}, embedded weights", known._replace(weights=weights), tableau.embedded_order, False)


def _explicit_shape(tableau: Explicit) -> None:
    """Stage i has i weights, the step as many as there are stages, and an order there is."""
    given = [*map(len, tableau.stages), len(tableau.weights), len(tableau.embedded) or len(tableau.weights)]
    count = len(tableau.stages) + 1
    if tableau.order < 1 or given != [*range(1, count), count, count]:
        allowed = f"an order of 1 or more, and {[*range(1, count)]} weights of the stages, {count} of the step"
        raise BadValue(f"tableau {tableau.name}", f"order {tableau.order}, weights {given}", allowed)


def _classical(name: str, known: Expanded, order: int, with_linear: bool) -> None:
    for size in range(1, order + 1):
        for tree in trees(size, with_linear):
            if not tree.is_estimate:
                continue
            inner = _inner(tree.children, known)
            found = sum((w[tree.linear] * v for w, v in zip(known.weights, inner, strict=True)), ZERO)
            _same(name, f"the order condition of tree {tree}, order {size}", found, Fraction(1, tree.density))


def _inner(children: Sequence[RootedTree], known: Expanded) -> list[Fraction]:
    """For each stage the product of its children's weights."""
    values = [Fraction(1)] * len(known.nodes)
    for child in children:
        if child.is_estimate:
            below = _inner(child.children, known)
            factors = [
                sum((a[child.linear] * v for a, v in zip(line, below, strict=True)), ZERO) for line in known.stages
            ]
        else:
            factors = [node**child.linear / math.factorial(child.linear) for node in known.nodes]
        values = [value * factor for value, factor in zip(values, factors, strict=True)]
    return values


def _stiff(tableau: Exponential, known: Expanded) -> None:
    """psi_j = phi_j - sum_i b_i c_i^(j-1) / (j-1)!, and alike for each stage."""
    order, nodes, weights = tableau.stiff_order, known.nodes, known.weights
    defects = {
        j: [_defect(line, node, nodes, j) for line, node in zip(known.stages, nodes, strict=True)]
        for j in range(2, max(order, 2))
    }
    for j in range(1, order + 1):
        whole = _defect(weights, Fraction(1), nodes, j)
        _vanishes(tableau.name, f"stiff condition psi_{j} = 0", whole if j < order else whole[:1])
    for j in range(2, order):  # sum_i b_i J psi_(j, i), of order j + 1
        for m in range(SERIES if j + 1 < order else 1):
            sums = [sum(w[m] * d[n] for w, d in zip(weights, defects[j], strict=True)) for n in range(SERIES)]
            _vanishes(tableau.name, f"stiff condition sum b_i J psi_{j},i = 0", sums)
    if order >= 4:
        moved = [
            sum(w[0] * c * d[n] for w, c, d in zip(weights, nodes, defects[2], strict=True)) for n in range(SERIES)
        ]
        _vanishes(tableau.name, "stiff condition sum b_i c_i K psi_2,i = 0", moved)
        for m in range(SERIES):
            outer = [
                sum(w[0] * line[j][m] for w, line in zip(weights, known.stages, strict=True)) for j in range(len(nodes))
            ]
            sums = [sum(o * d[n] for o, d in zip(outer, defects[2], strict=True)) for n in range(SERIES)]
            _vanishes(tableau.name, "stiff condition sum b_i J a_ij J psi_2,j = 0", sums)


def _defect(line: Sequence[Series], node: Fraction, nodes: Row, j: int) -> list[Fraction]:
    exact = series(((node**j, j, node),)) if node else (ZERO,) * SERIES
    moment = [c ** (j - 1) / math.factorial(j - 1) for c in nodes]
    return [exact[m] - sum(a[m] * power for a, power in zip(line, moment, strict=True)) for m in range(SERIES)]


def _collocation(tableau: Collocation) -> None:
    """The quadrature at the nodes is exact for degree below the order."""
    for degree in range(tableau.order - tableau.count):
        found = sum((a / (power + degree + 1) for power, a in enumerate(tableau.polynomial)), ZERO)
        _same(tableau.name, f"the integral of its node polynomial times x^{degree}", found, ZERO)


def _vanishes(name: str, condition: str, found: Sequence[Fraction | int]) -> None:
    for power, value in enumerate(found):
        _same(name, f"{condition}, at z^{power}", Fraction(value), ZERO)


def _same(name: str, condition: str, found: Fraction, wanted: Fraction) -> None:
    if found != wanted:
        raise BadValue(f"tableau {name}: {condition}", str(found), f"{wanted} at the order it declares")
