from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue, Cancelled
from sigmagraph.engine.graph.node import UiResult
from sigmagraph.engine.models import Checkpoint, load_checkpoint
from sigmagraph.engine.sampling import find_schedule, run_sigmas
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue
from tests.nodes.test_sampling import NEGATIVE, POSITIVE, blank


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def run(tiny: Checkpoint, name: str, **inputs: Any) -> Any:
    given = {"seed": 7, "steps": 4, "cfg": 3.0, "scheduler": "normal", "latent_image": blank(2)} | inputs
    return NODES[name](model=tiny.model, positive=POSITIVE, negative=NEGATIVE, **given)


def test_a_trajectory_is_ksamplers_run_and_its_states_obey_eulers_rule(tiny: Checkpoint) -> None:
    shown = run(tiny, "SamplerTrajectory", frames=8)
    assert isinstance(shown, UiResult)
    result, state, denoised = shown.value
    assert torch.equal(result.samples, run(tiny, "KSampler").samples)
    assert torch.equal(state.samples[-1], result.samples[0])
    assert state.samples.shape == denoised.samples.shape == (4, 16, 6, 8)
    sigmas = run_sigmas(find_schedule("normal", 1), tiny.model.parameterisation.levels, 4)
    assert shown.ui == {"step": [1, 2, 3, 4], "sigma": sigmas[1:]}
    levels = tiny.model.spec.latent_format
    x, estimate = levels.to_model(state.samples), levels.to_model(denoised.samples)
    for place, (sigma, after) in enumerate(pairwise(sigmas[1:])):
        stepped = x[place] + (x[place] - estimate[place + 1]) / sigma * (after - sigma)
        torch.testing.assert_close(x[place + 1], stepped, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sampler", "steps", "frames", "kept"), [("heun", 6, 3, [2, 4, 6]), ("euler", 1, 5, [1])])
def test_so_many_frames_are_spread_over_the_steps(
    tiny: Checkpoint, sampler: str, steps: int, frames: int, kept: list[int]
) -> None:
    shown = run(tiny, "SamplerTrajectory", sampler_name=sampler, steps=steps, frames=frames)
    assert shown.ui["step"] == kept
    assert len(shown.value[1].samples) == len(kept)


def test_a_run_without_a_step_has_one_frame(tiny: Checkpoint) -> None:
    latent = LatentValue(torch.ones(1, 16, 6, 8))
    shown = run(tiny, "SamplerTrajectory", denoise=0.0, latent_image=latent)
    assert shown.ui["step"] == [0]
    torch.testing.assert_close(shown.value[1].samples, latent.samples)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), away=st.floats(0.001, 10))
def test_a_distance_is_in_units_of_the_references_spread(scale: float, away: float) -> None:
    exact = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * scale
    moved = exact + away * exact.std() * torch.tensor([1.0, -1.0]).repeat(4)
    found = NODES["LatentDistance"](samples=LatentValue(moved), reference=LatentValue(exact))
    assert found.value == pytest.approx(away, rel=1e-3)
    assert found.ui == {"distance": [found.value]}


def test_latents_of_two_sizes_have_no_distance() -> None:
    with pytest.raises(BadValue, match=r"\[1, 16, 6, 8\].*\[2, 16, 6, 8\]"):
        NODES["LatentDistance"](samples=blank(1), reference=blank(2))


def test_levels_are_those_of_a_run_and_evaluations_are_counted_without_one(tiny: Checkpoint) -> None:
    shown = NODES["SamplerLevels"](
        model=tiny.model, samplers="euler, heun,dpm_2", schedules="normal,karras", steps="3,5"
    )
    rows = shown.ui["levels"]
    assert [(row["sampler"], row["schedule"], row["steps"]) for row in rows[:3]] == [
        ("euler", "normal", 3),
        ("euler", "normal", 5),
        ("euler", "karras", 3),
    ]
    levels = tiny.model.parameterisation.levels
    assert rows[3]["sigmas"] == run_sigmas(find_schedule("karras", 1), levels, 5)
    drops = [row for row in rows if row["sampler"] == "dpm_2" and row["schedule"] == "normal"]
    assert drops[0]["sigmas"] == run_sigmas(find_schedule("normal", 1), levels, 3, drops_penultimate=True)
    assert [row["evaluations"] for row in rows if row["schedule"] == "normal"] == [3, 5, 5, 9, 5, 9]
    assert all(row["problem"] is None for row in rows)


def test_a_name_nobody_knows_is_a_problem_of_its_row_alone(tiny: Checkpoint) -> None:
    rows = NODES["SamplerLevels"](model=tiny.model, samplers="eulr,euler", schedules="normal", steps="2").ui["levels"]
    assert "did you mean 'euler'" in rows[0]["problem"]
    assert rows[1]["problem"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"steps": "0"}, "from 1 to 1000"),
        ({"steps": "2,x"}, "from 1 to 1000"),
        ({"samplers": " , "}, "at least one"),
        ({"steps": ",".join(map(str, range(1, 402)))}, "at most 400"),
        ({"steps": ",".join(map(str, range(970, 1001)))}, "30535 steps together.*at most 20000"),
    ],
)
def test_levels_are_asked_for_in_words_that_can_be_read(tiny: Checkpoint, more: dict[str, str], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        NODES["SamplerLevels"](**{"model": tiny.model, "samplers": "euler", "schedules": "normal", "steps": "2"} | more)


def test_a_cancel_is_heard_between_two_rows(tiny: Checkpoint) -> None:
    """400 rows of a rule that takes seconds each would hold the worker's lane for an hour."""
    heard: list[tuple[float, float]] = []

    def going(done: float, total: float) -> None:
        heard.append((done, total))
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        NODES["SamplerLevels"](model=tiny.model, samplers="euler", schedules="normal", steps="1,2,3,4", going=going)
    assert heard == [(0, 4), (1, 4), (2, 4)]
