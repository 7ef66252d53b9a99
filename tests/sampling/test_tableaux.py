"""Every tableau has the order it declares, by exact arithmetic; one changed coefficient is found and named."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import SOLVERS
from sigmagraph.engine.sampling.solvers.exponential_rk import add_exponential, phi
from sigmagraph.engine.sampling.solvers.gauss_legendre import add_collocation, nodes_of
from sigmagraph.engine.sampling.solvers.parts.order_conditions import proven, trees
from sigmagraph.engine.sampling.solvers.parts.tableaux import COLLOCATION, EXPLICIT, EXPONENTIAL, Explicit, row, weight
from sigmagraph.engine.sampling.solvers.runge_kutta import add_explicit

pytestmark = pytest.mark.quick

EVERY = {tableau.name: tableau for tableau in (*EXPLICIT, *EXPONENTIAL, *COLLOCATION)}


@pytest.mark.parametrize("name", EVERY)
def test_a_tableau_has_its_order_and_no_higher_one(name: str) -> None:
    proven(EVERY[name])
    with pytest.raises(BadValue, match=name):
        proven(replace(EVERY[name], order=EVERY[name].order + 1))


def test_rooted_trees_are_as_many_as_cayley_counted() -> None:
    assert [len(trees(size, False)) for size in range(1, 7)] == [1, 1, 2, 4, 9, 20]


def test_only_res_5s_keeps_its_order_for_stiff_estimates() -> None:
    stiff = {one.name: one.stiff_order for one in EXPONENTIAL}
    assert stiff == {"etdrk2": 2, "etdrk3": 2, "etdrk4": 2, "res_5s": 4}
    for one in EXPONENTIAL[1:3]:
        with pytest.raises(BadValue, match=r"stiff condition sum b_i J psi_2,i = 0, at z\^[12]"):
            proven(replace(one, stiff_order=3))


def test_a_broken_tableau_is_an_error_that_names_the_condition_and_registers_nothing() -> None:
    rk4, etdrk4, gauss = EVERY["rk4"], EVERY["etdrk4"], EVERY["gauss_legendre_3s"]
    with pytest.raises(BadValue, match=r"tableau mine: the order condition of tree \[\[\[\]\]\], order 3"):
        add_explicit(replace(rk4, name="mine", weights=row("0 1/2 1/2 0")))
    with pytest.raises(BadValue, match="tableau mine: the order condition"):
        add_exponential(replace(etdrk4, name="mine", weights={**etdrk4.weights, 3: weight(("1", 3, "1"))}))
    with pytest.raises(BadValue, match=r"integral of its node polynomial times x\^0"):
        add_collocation(replace(gauss, name="mine", polynomial=row("-1/20 3/5 -7/5 1")))
    assert "mine" not in SOLVERS


@pytest.mark.parametrize("name", ["", "rk@2"])
def test_a_name_that_cannot_be_asked_for_is_not_registered(name: str) -> None:
    with pytest.raises(BadValue, match="name of a sampler"):
        add_explicit(replace(EVERY["rk4"], name=name))
    assert name not in SOLVERS


@pytest.mark.parametrize(("stages", "weights", "order"), [("1", "1/2", 2), ("1 0", "1/2 1/2", 2), ("1", "1 0", 0)])
def test_a_tableau_of_another_shape_or_of_no_order_is_an_error(stages: str, weights: str, order: int) -> None:
    with pytest.raises(BadValue, match=r"tableau odd: 'order \d, weights"):
        proven(Explicit("odd", order, (row(stages),), row(weights), "none"))


def test_nodes_are_those_of_the_closed_forms() -> None:
    radau = nodes_of(EVERY["radau_iia_3s"])
    assert radau == pytest.approx([(4 - math.sqrt(6)) / 10, (4 + math.sqrt(6)) / 10, 1.0], abs=1e-15)
    assert nodes_of(EVERY["lobatto_iiia_3s"]) == (0.0, 0.5, 1.0)
    for one in COLLOCATION:
        for node in nodes_of(one):
            assert abs(sum(float(a) * node**power for power, a in enumerate(one.polynomial))) < 1e-15


@pytest.mark.parametrize("z", [0.0, -0.3, -0.999, -1.001, -4.0, -25.0])
def test_phi_functions_agree_with_their_series_in_rational_arithmetic(z: float) -> None:
    exact = Fraction(z)
    for k in range(4):
        series = sum((exact**m / math.factorial(m + k) for m in range(140)), Fraction(0))
        assert phi(k, z) == pytest.approx(float(series), rel=1e-13)
