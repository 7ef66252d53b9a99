"""The likelihood under the flow: exact on Gaussians, and on a mixture what its density says."""

import pytest
import torch

import sigmagraph as sg
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import Parameterisation, edm, sd3
from sigmagraph.engine.sampling.conformance.problems import bumps, gaussian
from sigmagraph.engine.sampling.likelihood import log_likelihood

MODELS = {"flow": (sd3(), 1.0), "ve": (edm(), 80.0)}
X = torch.linspace(-1.5, 2.0, 24, dtype=torch.float64).reshape(4, 1, 2, 3)


def levels(top: float, steps: int) -> list[float]:
    return [1e-3 * (top / 1e-3) ** (place / steps) for place in range(steps)] + [top]


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("problem", [gaussian, bumps])
def test_it_is_the_density_of_the_data(family: str, problem: object) -> None:
    model, top = MODELS[family]
    line = problem(model.process)  # type: ignore[operator]
    found = log_likelihood(
        line,
        X,
        levels(top, 320 if problem is gaussian else 80),
        model,
        prior=lambda x: line.log_density(x, top).flatten(1).sum(1),
    )
    alpha = model.process.alpha(1e-3)
    exact = (line.log_density(X * alpha, 1e-3) + torch.tensor(alpha).double().log()).flatten(1).sum(1)
    assert (found - exact).abs().max() < (1e-5 if problem is gaussian else 1e-2)


def test_at_a_flow_s_sigma_1_no_prior_need_be_given() -> None:
    model: Parameterisation = sd3()
    line = gaussian(model.process)
    told = log_likelihood(line, X, levels(1.0, 20), model, prior=lambda x: line.log_density(x, 1.0).flatten(1).sum(1))
    torch.testing.assert_close(log_likelihood(line, X, levels(1.0, 20), model), told)


def test_levels_that_do_not_rise_are_named() -> None:
    with pytest.raises(BadValue, match="two rising levels"):
        log_likelihood(gaussian(sd3().process), X, [1.0, 0.5], sd3())


@pytest.mark.parametrize("family", MODELS)
def test_from_python_it_takes_a_schedule_either_way(family: str) -> None:
    model, _ = MODELS[family]
    line, given = gaussian(model.process), None if family == "ve" else model
    falling = sg.sigmas("karras", 80, given)
    found = sg.log_likelihood(line, X, falling, model=given)
    exact = torch.distributions.Normal(0.8, 0.6).log_prob(X).flatten(1).sum(1)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3 if family == "flow" else 0.2)  # its noise is not pure
    assert torch.equal(sg.log_likelihood(line, X, falling[::-1], model=given), found)
