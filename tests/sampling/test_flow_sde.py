"""Stochastic flow samplers: their moments, weights of a mixture, log-probabilities, gradients, windows, branches."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import (
    SOLVERS,
    PhiloxNoise,
    Recording,
    Sampling,
    Trajectory,
    sd3,
)
from sigmagraph.engine.sampling.branching import branched
from sigmagraph.engine.sampling.conformance.problems import sharp
from sigmagraph.engine.sampling.solver_run import SolverRun, context_of
from sigmagraph.engine.sampling.transition import Transition
from tests.sampling.closed_form import GAUSS_MEAN, GAUSS_STD, bumps, gauss

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ("flow_grpo", "flow_cps", "flow_euler_sde", "precise", "flow_sde_2m", "flow_sde_3m")
SIGMAS = [1.0, 0.8, 0.55, 0.3, 0.1, 0.0]
SHAPE = (2, 1, 3, 4)


def levels(steps: int) -> list[float]:
    return [1 - place / steps for place in range(steps)] + [0.0]


def made(name: str, denoiser: object = bumps, options: Mapping[str, object] | None = None, **rest: object) -> Sampling:
    parts = {"latent": torch.zeros(SHAPE, dtype=torch.float64), "sigmas": SIGMAS, "noise": PhiloxNoise(3)} | rest
    return Sampling(denoiser, model=sd3(), solver=name, options=options, **parts)  # type: ignore[arg-type]


def watched(sampling: Sampling, recording: Recording | None = None) -> tuple[Trajectory, Tensor]:
    trajectory = Trajectory()
    return trajectory, sampling.run(recording, on_tick=trajectory.add)


def exact_moments(name: str, steps: int, options: Mapping[str, object]) -> tuple[float, float]:
    """Mean and variance of what a sampler gives for the Gaussian, without drawing: every step is affine in the state.

    Its mean at states 0 and 1 says how, and its standard deviation is told.
    """
    basis, told = torch.tensor([0.0, 1.0]).double().reshape(2, 1, 1, 1), list[Transition]()

    def chosen(transition: Transition) -> Tensor:
        told.append(transition)
        return basis

    context = context_of(SOLVERS[name], basis, levels(steps), sd3(), PhiloxNoise(0))
    run = SolverRun(SOLVERS[name], basis, levels(steps), replace(context, chosen=chosen), options)
    while run.request is not None:
        run.answer(gauss(run.request.x, run.request.sigma))
    mean, variance = 0.0, 1.0
    for one in told:
        offset, gain = float(one.mean[0]), float(one.mean[1] - one.mean[0])
        mean, variance = gain * mean + offset, gain**2 * variance + one.std**2
    return mean, variance / GAUSS_STD**2 - 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sde": "memoryless", "noise_level": 1.0},
        {"sde": "constant", "noise_level": 0.3},
        {"sde": "linear"},
        {"noise_level": 0.0},
    ],
)
def test_precise_converges_to_the_process_at_weak_order_1_whatever_the_sde(options: Mapping[str, object]) -> None:
    (mean, coarse), (_, fine) = exact_moments("precise", 80, options), exact_moments("precise", 320, options)
    assert mean == pytest.approx(GAUSS_MEAN, abs=1e-9)
    assert 0.75 < math.log(coarse / fine, 4) < 1.15
    assert abs(fine) < 0.02


@pytest.mark.parametrize(("name", "limit"), [("flow_cps", -0.28), ("flow_euler_sde", -0.50)])
def test_two_do_not_converge_to_the_process_and_their_bias_is_as_the_page_says(name: str, limit: float) -> None:
    assert exact_moments(name, 320, {})[1] == pytest.approx(limit, abs=0.015)
    assert exact_moments(name, 1280, {})[1] == pytest.approx(limit, abs=0.008)


def test_flow_grpo_stops_near_half_a_percent_too_much_variance() -> None:
    assert exact_moments("flow_grpo", 640, {})[1] == pytest.approx(0.0048, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow_grpo", "precise", "flow_sde_2m"])
def test_the_weights_of_two_components_are_the_exact_ones(name: str) -> None:
    """Four standard errors of 160,000 draws (confidence 99.99 %), and a bias of a quarter over the steps."""
    line, steps, count = sharp(sd3().process), 160, 160_000
    latent = torch.zeros(1, 1, 400, 400, dtype=torch.float64)
    result = made(name, line, latent=latent, sigmas=levels(steps)).run()
    left = float((result < -0.4).double().mean())
    exact = float(line.below(torch.tensor(-0.4).double(), 0.0))
    assert abs(left - exact) < 4 * math.sqrt(exact * (1 - exact) / count) + 0.25 / steps


@pytest.mark.parametrize("name", NAMES)
def test_a_step_s_log_probability_is_the_normal_density_s(name: str) -> None:
    trajectory, _ = watched(made(name))
    assert len(trajectory.transitions) == len(SIGMAS) - 1
    for place, one in enumerate(trajectory.transitions):
        assert one is not None
        if one.std > 0:
            normal = torch.distributions.Normal(one.mean, one.std)
            terms = normal.log_prob(trajectory.x[place]).flatten(1)
            torch.testing.assert_close(trajectory.log_prob(place), terms.sum(1), rtol=1e-13, atol=1e-12)
            torch.testing.assert_close(one.log_prob(trajectory.x[place], per_element=True), terms.mean(1))
            other = Transition(one.mean + 0.3, one.std, one.sigma, one.sigma_next)
            kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(other.mean, one.std))
            torch.testing.assert_close(one.divergence(other), kl.flatten(1).sum(1))
    assert len(trajectory.log_probs()) == (5 if name == "flow_grpo" else 4)  # that one draws in its last step too


def test_a_deterministic_step_has_no_log_probability_and_says_so() -> None:
    trajectory, _ = watched(made("precise", options={"sde_start_step": 1, "sde_end_step": 3}))
    assert [one.is_stochastic for one in trajectory.transitions if one] == [False, True, True, False, False]
    assert trajectory.log_probs().shape == (2, 2)
    with pytest.raises(BadValue, match=r"from sigma 1 to 0\.8: 'a deterministic step, which has no density'"):
        trajectory.log_prob(0)
    trajectory, _ = watched(made("euler"))
    with pytest.raises(BadValue, match="distribution is not known.*flow_grpo"):
        trajectory.log_prob(0)


@pytest.mark.parametrize("name", NAMES)
def test_outside_the_window_the_steps_are_euler_s(name: str) -> None:
    whole, _ = watched(made("euler"))
    trajectory, _ = watched(made(name, options={"sde_start_step": 3}))
    ahead = 2 if name.startswith("flow_sde") else 3  # these follow a polynomial from the second step on
    for place in range(3 if ahead == 3 else 1):
        torch.testing.assert_close(trajectory.x[place], whole.x[place], rtol=1e-13, atol=1e-13)
    assert trajectory.transitions[3] is not None
    assert trajectory.transitions[3].std > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "window", [{"sde_start_step": 5}, {"sde_end_step": 6}, {"sde_start_step": 3, "sde_end_step": 3}]
)
def test_a_window_outside_the_run_is_named(name: str, window: Mapping[str, object]) -> None:
    with pytest.raises(BadValue, match=f"{name}.*window of stochastic steps.*within the run, which has 5"):
        made(name, options=window).run()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_log_probabilities_along_a_way_are_those_of_finite_differences(name: str) -> None:
    way, _ = watched(made(name))

    def total(weight: Tensor) -> Tensor:
        along = made(name, lambda x, sigma: bumps(x, sigma).denoised * weight, gradients=True).along(way.x)
        again = Trajectory()
        for tick in along:
            again.add(tick)
        return again.log_probs().sum()

    weight = torch.tensor(1.02, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total(weight), weight)
    with torch.no_grad():
        numeric = (total(weight + 1e-5) - total(weight - 1e-5)) / 2e-5
    assert float(slope) == pytest.approx(float(numeric), rel=1e-6)


def test_along_its_own_way_a_run_says_what_it_said() -> None:
    way, final = watched(made("flow_sde_2m"))
    again, steps = Trajectory(), made("flow_sde_2m").along(way.x)
    for tick in steps:
        again.add(tick)
    assert torch.equal(again.log_probs(), way.log_probs())
    assert torch.equal(again.x[-1], final)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_through_the_states_of_a_run(name: str) -> None:
    def end(weight: Tensor) -> Tensor:
        return made(name, lambda x, sigma: bumps(x, sigma).denoised * weight, gradients=True).run().square().sum()

    weight = torch.tensor(0.97, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(end(weight), weight)
    with torch.no_grad():
        numeric = (end(weight + 1e-5) - end(weight - 1e-5)) / 2e-5
    assert float(slope) == pytest.approx(float(numeric), rel=1e-6)


@pytest.mark.parametrize("evaluations", [0, 2, 5])
@pytest.mark.parametrize("name", [*NAMES, "euler_ancestral"])
def test_branches_share_their_first_steps_without_asking_the_model(name: str, evaluations: int) -> None:
    recording, asked = Recording(), list[float]()

    def counting(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return bumps(x, sigma).denoised

    whole = made(name, counting)
    _, final = watched(whole, recording)
    asked.clear()
    run, shared = branched(whole, recording, 3, evaluations)
    ends = run.run(shared)
    assert asked == SIGMAS[evaluations:-1]
    torch.testing.assert_close(ends[::3], final, rtol=1e-12, atol=1e-12)
    if evaluations < 4:
        assert not torch.allclose(ends[1::3], ends[::3])
    if evaluations == 5:
        torch.testing.assert_close(ends, final.repeat_interleave(3, 0))


def test_branches_keep_the_mask_of_their_own_image() -> None:
    masks = torch.stack([torch.ones(3, 4).tril(), torch.ones(3, 4).triu()])
    run, recording = made("precise", mask=masks), Recording()
    final = run.run(recording)
    branch, shared = branched(run, recording, 2, 2)
    assert torch.equal(branch.run(shared)[::2], final)


@pytest.mark.parametrize("first", [1.0, 1 - 2**-24, 1 - 1e-9])
def test_flow_grpo_from_a_first_level_rounded_below_1_is_the_run_from_1(first: float) -> None:
    exact = made("flow_grpo").run()
    assert float((made("flow_grpo", sigmas=[first, *SIGMAS[1:]]).run() - exact).abs().max()) < 1e-5


def test_a_way_of_another_shape_is_refused() -> None:
    run = made("precise")
    trajectory, _ = watched(run)
    with pytest.raises(BadValue, match=r"states: \(1, 1, 3, 4\)"):
        list(run.along([state[:1] for state in trajectory.x]))


def test_what_cannot_branch_says_so() -> None:
    recording = Recording()
    made("precise").run(recording)
    with pytest.raises(BadValue, match="from 0 to the 5"):
        branched(made("precise"), recording, 2, 6)
    with pytest.raises(BadValue, match="draws noise in sequence"):
        branched(made("euler"), recording, 2, 2)


def test_the_page_on_reinforcement_learning_works_as_written() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "reinforcement.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "reinforcement.md", "exec"), names)
    assert len(blocks) == 4
