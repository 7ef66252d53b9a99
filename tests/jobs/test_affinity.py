"""A job goes to the worker that holds its weights already, where more than one is free."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sigmagraph.engine.jobs.events import Started
from sigmagraph.engine.jobs.placement.affinity import Affinity, model_files
from tests.jobs.serving import here, log, sent, service, started

Runs = Callable[[Coroutine[Any, Any, None]], None]


def graph(*files: str) -> dict[str, Any]:
    return {str(at): {"class_type": "Load", "inputs": {"ckpt_name": name, "seed": 1}} for at, name in enumerate(files)}


def test_the_files_of_a_graph_are_told_by_their_names() -> None:
    prompt = graph("a.safetensors", "B.GGUF") | {"9": {"class_type": "Save", "inputs": {"images": ["0", 0]}}, "x": {}}
    assert model_files(prompt) == {"a.safetensors", "B.GGUF"}


def test_what_a_worker_used_last_counts_until_it_is_lost() -> None:
    known = Affinity()
    known.add("job", graph("a.safetensors", "b.safetensors"))
    known.ran("first", graph("a.safetensors"))
    for at in range(20):
        known.ran("second", graph(f"{at}.safetensors"))
    assert known.shared("first", known.wanted("job")) == 1
    assert known.shared("second", frozenset({"0.safetensors", "19.safetensors"})) == 1
    known.lost("first")
    known.gone("job")
    assert known.shared("first", frozenset({"a.safetensors"})) == 0
    assert known.wanted("job") == known.wanted(None) == frozenset()


def test_two_models_that_take_turns_stay_on_their_own_workers(tmp_path: Path, run: Runs) -> None:
    async def scenario() -> None:
        async with service(tmp_path, [here(name="first"), here(name="second")]) as jobs:
            places: dict[str, set[str]] = {"a.safetensors": set(), "b.safetensors": set()}
            first = await sent(jobs, "Steps", count=40, seconds=0.02, salt="a.safetensors")
            await started(jobs, first)  # so that the other model begins elsewhere
            for turn in range(1, 8):
                name = ("a.safetensors", "b.safetensors")[turn % 2]
                job = await sent(jobs, "Steps", count=1, seconds=0.0, salt=name)
                await jobs.wait(job.id)
                await jobs.wait(first.id)
                places[name] |= {event.body.worker for event in await log(jobs, job) if isinstance(event.body, Started)}
            assert all(len(workers) == 1 for workers in places.values()), places

    run(scenario())
