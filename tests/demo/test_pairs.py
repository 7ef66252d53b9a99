"""Every sampler with every schedule draws what the prompt says, on the demo checkpoint, in 20 steps.

Rules of more than 8 evaluations a step take 8 steps.

`pytest -m slow tests/demo`: two runs at a time, one core each. Names that only pass settings on (`*_gpu`) are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from models.demo.checker import check
from models.demo.export import CHECKPOINT
from models.demo.measure import GUIDANCE, LATENT_SIDE, STEPS, Pipeline
from models.demo.scenes import single
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Conditioning
from sigmagraph.engine.sampling import (
    SCHEDULES,
    SOLVERS,
    Cfg,
    ComfyNoise,
    Sampling,
    find_schedule,
    find_solver,
    run_sigmas,
)

pytestmark = pytest.mark.slow

SCENE = single("star", "blue", "large", "on the left", "beige")
NOT_FLOW = ("vp", "align_your_steps")
COARSE = "12 of the 20 steps lie below sigma 0.1; the extrapolation over the wide early ones invents a second thing"
JUMP = "ten tiny steps above sigma 0.97, then wide ones: high-order weights carry the tiny steps' noise far"
NOISY = "fresh noise at every one of too few steps at high noise"
FEW = "20 evaluations are too few for this spacing; 30 are enough"
WIDE = ("exponential", "polyexponential")
"""One spacing under two names: rho is 1."""
EXCEPTIONS = {
    "lms": {**dict.fromkeys((*WIDE, "laplace"), COARSE), "linear_quadratic": JUMP},
    "ipndm": {**dict.fromkeys((*WIDE, "laplace"), COARSE), "linear_quadratic": JUMP},
    "ipndm_v": {**dict.fromkeys((*WIDE, "laplace"), COARSE), "linear_quadratic": JUMP},
    "stork_4": {**dict.fromkeys((*WIDE, "laplace"), COARSE), "linear_quadratic": JUMP},
    "stork_2": dict.fromkeys(WIDE, COARSE),
    "dpmpp_2m": dict.fromkeys(WIDE, COARSE),
    "er_sde": dict.fromkeys(WIDE, COARSE),
    "deis": dict.fromkeys(WIDE, COARSE),
    "res_multistep": dict.fromkeys(WIDE, COARSE),
    "gradient_estimation": dict.fromkeys(WIDE, COARSE),
    **dict.fromkeys(("precise", "flow_sde_2m", "flow_sde_3m"), dict.fromkeys(WIDE, NOISY)),
    "res_multistep_ancestral": {**dict.fromkeys(WIDE, NOISY), "karras": NOISY},
    "dpm_fast": {"bong_tangent": FEW},
    "uni_pc": {"laplace": FEW},
}
"""Pairs that miss the prompt at 20 steps, with the reason; each of them obeys with 80."""


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(CHECKPOINT)


@pytest.fixture(scope="module")
def at_once() -> Iterator[ThreadPoolExecutor]:
    """Two threads of one core each: such small forwards gain nothing from a second core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(2) as pool:
        yield pool
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def texts(pipeline: Pipeline) -> tuple[Conditioning, Conditioning]:
    return pipeline.clip.encode(SCENE.caption), pipeline.clip.encode("")


def is_obeyed(
    pipeline: Pipeline, texts: tuple[Conditioning, Conditioning], sampler: str, schedule: str, steps: int | None = None
) -> bool:
    model, solver = pipeline.model, find_solver(sampler)
    steps = steps or (STEPS if solver.evaluations <= 8 else 8)
    levels = model.parameterisation.levels
    sigmas = run_sigmas(find_schedule(schedule), levels, steps, 1.0, solver.drops_penultimate)
    scale = 1.0 if solver.needs_uncond else GUIDANCE  # CFG++ is meant for scales near 1
    blank = torch.zeros(1, 16, LATENT_SIDE, LATENT_SIDE)
    guided = Cfg(model.predict, *texts, scale)
    latent = Sampling(guided, blank, sigmas, model.parameterisation, solver, noise=ComfyNoise(3)).run()
    image = pipeline.vae.decode(model.spec.latent_format.to_vae(latent))[0].permute(2, 0, 1)
    return check(image, SCENE).is_right


@pytest.fixture(scope="module")
def missed(
    pipeline: Pipeline, texts: tuple[Conditioning, Conditioning], at_once: ThreadPoolExecutor
) -> Callable[[str, Sequence[str], int], set[str]]:
    """The schedules with which a sampler misses the prompt."""

    def run(sampler: str, schedules: Sequence[str], steps: int | None = None) -> set[str]:
        obeyed = at_once.map(lambda schedule: is_obeyed(pipeline, texts, sampler, schedule, steps), schedules)
        return {schedule for schedule, is_right in zip(schedules, obeyed, strict=True) if not is_right}

    return run


SAMPLERS = [name for name in SOLVERS if not name.endswith("_gpu")]
FLOW_SCHEDULES = [name for name in SCHEDULES if name not in NOT_FLOW]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_obeys_with_every_schedule(missed: Callable[..., set[str]], sampler: str) -> None:
    wrong = missed(sampler, FLOW_SCHEDULES)
    assert wrong <= set(EXCEPTIONS.get(sampler, {}))


@pytest.mark.parametrize("sampler", EXCEPTIONS)
def test_a_listed_pair_obeys_with_more_steps(missed: Callable[..., set[str]], sampler: str) -> None:
    assert missed(sampler, list(EXCEPTIONS[sampler]), 80) == set()


@pytest.mark.parametrize("schedule", NOT_FLOW)
def test_a_schedule_of_another_kind_of_model_is_refused(
    pipeline: Pipeline, texts: tuple[Conditioning, Conditioning], schedule: str
) -> None:
    with pytest.raises(BadValue, match="flow model"):
        is_obeyed(pipeline, texts, "euler", schedule)
