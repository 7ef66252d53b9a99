"""A rehearsal tells the levels that a run asks about."""

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import SOLVERS, ComfyNoise, Sampling, find_schedule, find_solver, run_sigmas, sd3
from sigmagraph.engine.sampling.rehearsal import MOST_A_STEP, rehearsed
from sigmagraph.engine.sampling.solver import Prediction


@pytest.mark.parametrize("name", [name for name in SOLVERS if not name.endswith("_adaptive")])
def test_what_a_run_asks_about_is_what_its_rehearsal_did(name: str) -> None:
    model, solver, asked = sd3(), find_solver(name), list[float]()
    sigmas = run_sigmas(find_schedule("normal"), model.levels, 6, 1.0, False)
    generator = torch.Generator().manual_seed(1)

    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        asked.append(sigma)
        estimate = torch.randn(x.shape, generator=generator)
        return Prediction(estimate, estimate * 0.5 if needs_uncond else None)

    Sampling(denoiser, torch.zeros(1, 4, 4, 4), sigmas, model, solver, noise=ComfyNoise(3)).run()
    assert rehearsed(solver, sigmas, model) == asked


def test_a_rule_that_chooses_its_own_steps_is_bounded_and_a_bad_schedule_is_left_to_the_run() -> None:
    model = sd3()
    sigmas = run_sigmas(find_schedule("normal"), model.levels, 6, 1.0, False)
    assert len(rehearsed(find_solver("dpm_adaptive"), sigmas, model)) <= MOST_A_STEP * len(sigmas)
    rising = [0.2, 0.9, 0.0]
    assert rehearsed(find_solver("euler"), rising, model) == [0.2, 0.9]  # a rule that can go up
    assert rehearsed(find_solver("dpmpp_3m_sde"), rising, model) == rising  # one that cannot: the run will say so
