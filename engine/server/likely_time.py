"""How long a graph will take, by what jobs of the same model and size took lately. A guess, and said as one.

Two graphs are alike where they have the same classes, weight files and sizes; prompts, seeds, samplers and step counts
may differ. The time of sampling grows with the evaluations; what else runs takes what it took in the middle run, so
that a model that was loaded once does not count again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

from sigmagraph.engine.graph.sweep import GUIDANCE, SWEPT
from sigmagraph.engine.jobs.job import Job

__all__ = ["Guess", "likely_time", "part_of_run"]

SIZES = frozenset({"width", "height", "batch_size", "length", "scale_by", "upscale_method"})
WEIGHTS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt")
MOST_STEPS = 1_000_000  # far more than a node takes; a larger number may be none that a float can hold
Prompt = Mapping[str, Mapping[str, Any]]


class Guess(NamedTuple):
    """Seconds, and by how many runs; None where there was none like it."""

    seconds: float | None
    runs: int


def likely_time(prompt: Prompt, jobs: Iterable[Job], facts: Mapping[str, Mapping[str, Any]]) -> Guess:
    """The guess for a graph; `facts` has what is declared of each sampler."""
    wanted = _likeness(prompt)
    alike = [job for job in jobs if job.request is not None and _likeness(job.request.prompt) == wanted]
    runs = [run for job in alike if (run := _run(job, facts)) is not None]
    samplers = [node for node in prompt.values() if is_sampler(node)]
    told = [run for run in runs if run.work > 0 or not samplers]
    if not told:
        return Guess(None, 0)
    rest = median(run.other_s for run in told)
    pace = median(run.sampling_s / run.work for run in told) if samplers else 0.0
    return Guess(rest + pace * sum(_work(node, facts) for node in samplers), len(told))


class _Run(NamedTuple):
    """What a run took: its samplers, for so many evaluations, and all other nodes that were executed."""

    sampling_s: float
    work: float
    other_s: float


def _run(job: Job, facts: Mapping[str, Mapping[str, Any]]) -> _Run | None:
    """The times of a job; None where nothing of it was executed."""
    prompt = job.request.prompt if job.request is not None else {}
    reports = job.outcome.nodes if job.outcome is not None else {}
    ran = {i: report["milliseconds"] / 1000 for i, report in reports.items() if report.get("outcome") == "executed"}
    sampled = {i: prompt[i] for i in ran if i in prompt and is_sampler(prompt[i])}
    if not ran:
        return None
    sampling_s = sum(ran[i] for i in sampled)
    return _Run(sampling_s, sum(_work(node, facts) for node in sampled.values()), sum(ran.values()) - sampling_s)


def is_sampler(node: Mapping[str, Any]) -> bool:
    """Whether sampler, schedule and steps are written on it."""
    inputs = node.get("inputs", {})
    is_one = all(isinstance(inputs.get(name), str | int) for name in SWEPT) and isinstance(inputs["steps"], int)
    return bool(is_one and abs(inputs["steps"]) <= MOST_STEPS)


def part_of_run(inputs: Mapping[str, Any]) -> float:
    """Which share of its steps a node makes: all, but for an advanced sampler that begins or ends on the way."""
    steps = max(1, int(inputs["steps"]))
    first, last = (inputs.get(name, usual) for name, usual in (("start_at_step", 0), ("end_at_step", steps)))
    if not isinstance(first, int) or not isinstance(last, int):
        return 1.0
    return float(max(0, min(last, steps) - max(0, min(first, steps)))) / float(steps)


def _work(node: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> float:
    """Evaluations of the network, roughly: guidance other than 1 asks it twice."""
    inputs = node["inputs"]
    each = facts.get(str(inputs["sampler_name"]).partition("@")[0], {}).get("evaluations", 1)
    return float(inputs["steps"] * part_of_run(inputs) * each * (1 if inputs.get(GUIDANCE) == 1 else 2))


def _likeness(prompt: Prompt) -> Counter[tuple[str, tuple[tuple[str, Any], ...]]]:
    """The classes with their weight files and sizes."""
    return Counter(
        (
            str(node.get("class_type")),
            tuple(
                sorted((name, value) for name, value in node.get("inputs", {}).items() if _says_how_much(name, value))
            ),
        )
        for node in prompt.values()
    )


def _says_how_much(name: str, value: Any) -> bool:
    if isinstance(value, str):
        return name in SIZES or value.lower().endswith(WEIGHTS)
    return name in SIZES and isinstance(value, int | float)
