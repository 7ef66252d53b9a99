"""Coefficients of Runge-Kutta rules, exact: explicit, exponential, and fully implicit by collocation.

What `order_conditions.py` asks is proven of every one before it becomes a sampler. Sources: Hairer, Norsett & Wanner,
Solving ODEs I (explicit); Cox & Matthews 2002, J. Comput. Phys. 176, and Hochbruck & Ostermann 2005, SIAM J. Numer.
Anal. 43 (exponential); Hairer & Wanner, Solving ODEs II, sections IV.5 and IV.8 (collocation).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

Row: TypeAlias = tuple[Fraction, ...]
Term: TypeAlias = tuple[Fraction, int, Fraction]  # (weight, k, share): weight * phi_k(share * z)
Weight: TypeAlias = tuple[Term, ...]


def row(written: str) -> Row:
    """Fractions parted by spaces."""
    return tuple(map(Fraction, written.split()))


def weight(*terms: tuple[str, int, str]) -> Weight:
    """A sum of phi functions."""
    return tuple((Fraction(factor), k, Fraction(share)) for factor, k, share in terms)


@dataclass(frozen=True)
class Explicit:
    """Stage i is x + h sum_j stages[i - 1][j] slope_j, the step x + h sum_j weights[j] slope_j.

    With `embedded` weights, of order `embedded_order`, the step has an estimate of its error.
    """

    name: str
    order: int
    stages: tuple[Row, ...]
    weights: Row
    source: str
    embedded: Row = ()
    embedded_order: int = 0

    @property
    def nodes(self) -> Row:
        """Where in the step each stage is: the sums of its row."""
        return (Fraction(0), *(sum(one, Fraction(0)) for one in self.stages))


@dataclass(frozen=True)
class Exponential:
    """Weights of D_j - D_1 for stages from the second on; D_1 has what is left of c phi_1(c z), or of phi_1(z).

    `order` holds for smooth estimates, `stiff_order` whatever the estimate's Jacobian.
    """

    name: str
    order: int
    stiff_order: int
    nodes: Row
    stages: tuple[Mapping[int, Weight], ...]
    weights: Mapping[int, Weight]
    source: str


@dataclass(frozen=True)
class Collocation:
    """Nodes are the roots in [0, 1] of the monic polynomial with these coefficients, lowest power first."""

    name: str
    order: int
    polynomial: Row
    source: str

    @property
    def count(self) -> int:
        """Stages."""
        return len(self.polynomial) - 1

    @property
    def begins_the_step(self) -> bool:
        """Whether the first node is the step's beginning, where the estimate is known."""
        return self.polynomial[0] == 0


EXPLICIT = (
    Explicit("ralston_2s", 2, (row("2/3"),), row("1/4 3/4"), "Ralston 1962"),
    Explicit(
        "bogacki_shampine",
        3,
        (row("1/2"), row("0 3/4"), row("2/9 1/3 4/9")),
        row("2/9 1/3 4/9 0"),
        "Bogacki & Shampine 1989",
        row("7/24 1/4 1/3 1/8"),
        2,
    ),
    Explicit("rk4", 4, (row("1/2"), row("0 1/2"), row("0 0 1")), row("1/6 1/3 1/3 1/6"), "Kutta 1901"),
    Explicit(
        "dormand_prince",
        5,
        (
            row("1/5"),
            row("3/40 9/40"),
            row("44/45 -56/15 32/9"),
            row("19372/6561 -25360/2187 64448/6561 -212/729"),
            row("9017/3168 -355/33 46732/5247 49/176 -5103/18656"),
            row("35/384 0 500/1113 125/192 -2187/6784 11/84"),
        ),
        row("35/384 0 500/1113 125/192 -2187/6784 11/84 0"),
        "Dormand & Prince 1980",
        row("5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40"),
        4,
    ),
)

MIDDLE = weight(("1/2", 2, "1/2"), ("-1", 3, "1"), ("1/4", 2, "1"), ("-1/2", 3, "1/2"))
LAST = weight(("1/4", 2, "1/2"), ("-1/2", 2, "1/2"), ("1", 3, "1"), ("-1/4", 2, "1"), ("1/2", 3, "1/2"))
EXPONENTIAL = (
    Exponential("etdrk2", 2, 2, row("0 1"), ({},), {1: weight(("1", 2, "1"))}, "Cox & Matthews 2002"),
    Exponential(
        "etdrk3",
        3,
        2,
        row("0 1/2 1"),
        ({}, {1: weight(("2", 1, "1"))}),
        {1: weight(("4", 2, "1"), ("-8", 3, "1")), 2: weight(("-1", 2, "1"), ("4", 3, "1"))},
        "Cox & Matthews 2002",
    ),
    Exponential(
        "etdrk4",
        4,
        2,
        row("0 1/2 1/2 1"),
        ({}, {1: weight(("1/2", 1, "1/2"))}, {2: weight(("1", 1, "1/2"))}),
        {
            1: weight(("2", 2, "1"), ("-4", 3, "1")),
            2: weight(("2", 2, "1"), ("-4", 3, "1")),
            3: weight(("-1", 2, "1"), ("4", 3, "1")),
        },
        "Cox & Matthews 2002",
    ),
    Exponential(
        "res_5s",
        4,
        4,
        row("0 1/2 1/2 1 1/2"),
        (
            {},
            {1: weight(("1", 2, "1/2"))},
            {1: weight(("1", 2, "1")), 2: weight(("1", 2, "1"))},
            {1: MIDDLE, 2: MIDDLE, 3: LAST},
        ),
        {3: weight(("-1", 2, "1"), ("4", 3, "1")), 4: weight(("4", 2, "1"), ("-8", 3, "1"))},
        "Hochbruck & Ostermann 2005, eq. 5.19",
    ),
)

IMPLICIT = "Hairer & Wanner, Solving ODEs II, section IV.5, on the exponential form of Zhang 2023"
COLLOCATION = (
    Collocation("gauss_legendre_2s", 4, row("1/6 -1 1"), IMPLICIT),
    Collocation("gauss_legendre_3s", 6, row("-1/20 3/5 -3/2 1"), IMPLICIT),
    Collocation("gauss_legendre_4s", 8, row("1/70 -2/7 9/7 -2 1"), IMPLICIT),
    Collocation("radau_iia_2s", 3, row("1/3 -4/3 1"), IMPLICIT),
    Collocation("radau_iia_3s", 5, row("-1/10 9/10 -9/5 1"), IMPLICIT),
    Collocation("lobatto_iiia_3s", 4, row("0 1/2 -3/2 1"), IMPLICIT),
)
