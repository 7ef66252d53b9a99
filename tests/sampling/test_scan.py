"""Every sampler x schedule x length tried on ComfyUI: the same counts and sizes, and a number where it had NaN."""

import pytest

from sigmagraph.engine.sampling import find_schedule, find_solver, run_sigmas, sd3, sdxl
from tests.sampling.mixture import facts, run

FAMILIES = {"flow": sd3(), "eps": sdxl()}
SCAN = facts("status_scan")
SAMPLERS = sorted({key.split("/")[1] for key in SCAN})


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_pair_at_every_length_counts_and_ends_as_recorded(family: str, name: str) -> None:
    solver, levels = find_solver(name, 1), FAMILIES[family].levels
    for key, (status, evaluations, rms) in SCAN.items():
        scanned, sampler, schedule, steps = key.split("/")
        if (scanned, sampler) != (family, name):
            continue
        sigmas = run_sigmas(find_schedule(schedule, 1), levels, int(steps[5:]), 1.0, solver.drops_penultimate)
        result, asked = run(solver, sigmas, family=family)
        assert result.isfinite().all(), key
        if status == "ok":
            assert len(asked) == evaluations, key
            assert float(result.square().mean().sqrt()) == pytest.approx(rms, rel=2e-3), key


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_newest_revision_is_finite_on_every_pair_at_every_length(family: str, name: str) -> None:
    solver, levels = find_solver(name), FAMILIES[family].levels
    for schedule in sorted({key.split("/")[2] for key in SCAN}):
        for steps in (1, 2, 3, 5, 30):
            sigmas = run_sigmas(find_schedule(schedule), levels, steps)
            result, _ = run(solver, sigmas, family=family, guidance_scale=1.0)
            assert result.isfinite().all(), (schedule, steps)
            if solver.order > 0 and not solver.needs_uncond and steps == 30:  # CFG++ adds C - U at every step
                assert float(result.square().mean().sqrt()) < 2.5, (schedule, steps)  # the data's own is about 1
