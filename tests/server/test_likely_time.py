"""The guess of a job's time, by jobs whose times are known."""

from typing import Any

import pytest

from sigmagraph.engine.jobs.job import Job, Outcome, Request, State
from sigmagraph.engine.server.likely_time import likely_time, part_of_run

FACTS = {"euler": {"evaluations": 1}, "heun": {"evaluations": 2}}
PACE_S, LOAD_S, SAVE_S = 0.25, 3.0, 0.5  # of one evaluation of the network, and of the two other nodes


def graph(sampler: str = "euler", steps: int = 10, model: str = "a.safetensors", **more: Any) -> dict[str, Any]:
    size = {"width": more.pop("width", 64), "height": 64, "batch_size": 1}
    sampling = {
        "sampler_name": sampler,
        "scheduler": "karras",
        "steps": steps,
        "seed": 1,
        "cfg": 4.0,
        "model": ["1", 0],
    }
    return {
        "1": {"class_type": "Load", "inputs": {"ckpt_name": model}},
        "2": {"class_type": "Empty", "inputs": size},
        "3": {"class_type": "KSampler", "inputs": sampling | more},
        "4": {"class_type": "Save", "inputs": {"filename_prefix": "any"}},
    }


def ran(prompt: dict[str, Any], evaluations: float, *cached: str) -> Job:
    """A job that took what the constants say."""
    seconds = {"1": LOAD_S, "3": evaluations * PACE_S, "4": SAVE_S}
    nodes = {
        i: {"class_type": prompt[i]["class_type"], "outcome": "memory" if i in cached else "executed"}
        | {"milliseconds": 1000 * (0 if i in cached else s)}
        for i, s in seconds.items()
    }
    return Job("j", "o", State.SUCCEEDED, 0, 0, 1, 0.0, request=Request(prompt, ["4"]), outcome=Outcome({}, nodes))


def test_time_grows_with_evaluations_and_guidance_and_the_rest_stays() -> None:
    past = [ran(graph(seed=5), 20), ran(graph(steps=4, text="other"), 8)]
    guess = likely_time(graph("heun", 30), past, FACTS)
    assert guess == (pytest.approx(30 * 2 * 2 * PACE_S + LOAD_S + SAVE_S), 2)
    assert likely_time(graph(cfg=1), past, FACTS).seconds == pytest.approx(10 * PACE_S + LOAD_S + SAVE_S)
    part = likely_time(graph(start_at_step=6, end_at_step=100), past, FACTS)
    assert part.seconds == pytest.approx(4 * 2 * PACE_S + LOAD_S + SAVE_S)


def test_another_model_or_size_or_graph_says_nothing() -> None:
    other = graph() | {"5": {"class_type": "Upscale", "inputs": {}}}
    past = [ran(graph(model="b.safetensors"), 20), ran(graph(width=128), 20), ran(other, 20)]
    assert likely_time(graph(), past, FACTS) == (None, 0)


def test_what_came_from_the_cache_tells_no_time() -> None:
    assert likely_time(graph(), [ran(graph(), 20, "3")], FACTS) == (None, 0)
    guess = likely_time(graph(), [ran(graph(), 20), ran(graph(), 20, "1", "3")], FACTS)
    assert guess == (pytest.approx(20 * PACE_S + LOAD_S + SAVE_S), 1)


def test_a_model_that_was_loaded_once_does_not_count_again() -> None:
    past = [ran(graph(), 20), ran(graph(seed=2), 20, "1"), ran(graph(seed=3), 20, "1")]
    assert likely_time(graph(), past, FACTS) == (pytest.approx(20 * PACE_S + SAVE_S), 3)


def test_a_graph_that_samples_nothing_takes_what_its_nodes_took() -> None:
    flat = {"1": {"class_type": "Load", "inputs": {}}, "4": {"class_type": "Save", "inputs": {}}}
    job = ran(graph(), 20)
    nodes = {name: report for name, report in job.outcome.nodes.items() if name != "3"} if job.outcome else {}
    past = Job("j", "o", State.SUCCEEDED, 0, 0, 1, 0.0, request=Request(flat, ["4"]), outcome=Outcome({}, nodes))
    assert likely_time(flat, [past, past], FACTS) == (pytest.approx(LOAD_S + SAVE_S), 2)
    assert likely_time(flat, [], FACTS) == (None, 0)


@pytest.mark.parametrize(
    ("more", "share"),
    [({}, 1.0), ({"start_at_step": 5}, 0.75), ({"end_at_step": 5}, 0.25), ({"start_at_step": 30}, 0.0)],
)
def test_an_advanced_sampler_makes_a_part_of_its_steps(more: dict[str, int], share: float) -> None:
    assert part_of_run({"steps": 20} | more) == share


def test_a_number_no_float_can_hold_is_no_count_of_steps() -> None:
    """A graph may say anything; `float(10**400)` raises."""
    past = [ran(graph(), 10)]
    assert likely_time(graph(steps=10**400), past, FACTS).seconds is not None
    assert part_of_run({"steps": 20, "start_at_step": -(10**400)}) == 1.0
    assert part_of_run({"steps": 20, "end_at_step": 10**400}) == 1.0
