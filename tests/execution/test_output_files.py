"""Output nodes that are not run again, because what they wrote is still there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.execution.result import RunResult
from sigmagraph.engine.graph.node import Hidden, Services, Socket, UiResult, node
from sigmagraph.engine.graph.plan import plan
from tests.graph.small import NODES, checked

Run = Callable[..., tuple[RunResult, list[events.Event]]]


@node("Write", category="test", output_node=True)
def write(
    *, value: Annotated[Any, Socket("*")], kind: str = "output", services: Annotated[Services, Hidden("SERVICES")]
) -> UiResult:
    """Writes its value into the next free file."""
    folder = services.output_dir if kind == "output" else services.temp_dir
    folder.mkdir(parents=True, exist_ok=True)
    name = next(f"{at}.txt" for at in range(1000) if not (folder / f"{at}.txt").exists())
    (folder / name).write_text(str(value))
    return UiResult(ui={"files": [{"filename": name, "subfolder": "", "type": kind}], "text": ["told"]})


def document(a: int = 1, kind: str = "output", node_id: str = "w") -> dict[str, Any]:
    return {
        "a": {"class_type": "Add", "inputs": {"a": a, "b": 2}},
        node_id: {"class_type": "Write", "inputs": {"value": ["a", 0], "kind": kind}},
    }


def folders(root: Path) -> Folders:
    return Folders(root / "models", root / "input", root / "output", root / "temp")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a document on one scheduler with one cache, as the jobs of a worker are."""
    scheduler = Scheduler(None, MemoryCache(), host_threads=1)

    def one(written: dict[str, Any], *, reuses_outputs: bool = True, root: Path = tmp_path) -> Any:
        log: list[events.Event] = []
        services = folders(root)
        made = plan(checked(written, {**NODES, "Write": write}), services)
        ticket = scheduler.submit(made, log.append, services=services, reuses_outputs=reuses_outputs)
        return ticket.wait(20).or_raise(), log

    yield one
    scheduler.close()


def written(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "output").iterdir())


@pytest.mark.parametrize("kind", ["output", "temp"])
def test_an_output_whose_file_is_there_is_told_again_and_not_made_again(run: Run, kind: str) -> None:
    first, _ = run(document(kind=kind))
    again, log = run(document(kind=kind))
    assert (first.executed, again.executed) == (["a", "w"], [])
    assert again.ui == first.ui
    assert [event.cached for event in log if isinstance(event, events.RunStarted)] == [["a", "w"]]
    [told] = [event for event in log if isinstance(event, events.NodeFinished) and event.node_id == "w"]
    assert (told.source, told.ui) == ("memory", first.ui["w"])


def test_it_is_what_it_was_made_from_that_counts_and_not_the_nodes_name(run: Run) -> None:
    first, _ = run(document())
    assert run(document(node_id="other"))[0].ui["other"] == first.ui["w"]
    assert run(document(a=2))[0].executed == ["a", "w"]
    assert run(document())[0].executed == []


def test_a_file_that_is_gone_is_made_again(run: Run, tmp_path: Path) -> None:
    run(document())
    (tmp_path / "output/0.txt").unlink()
    again, log = run(document())
    assert again.executed == ["w"]
    assert [event.cached for event in log if isinstance(event, events.RunStarted)] == [["a"]]
    assert written(tmp_path) == ["0.txt"]
    assert run(document())[0].executed == []


def test_another_file_of_that_name_is_not_taken_for_it(run: Run, tmp_path: Path) -> None:
    run(document())
    (tmp_path / "output/0.txt").unlink()
    other, _ = run(document(a=7))
    assert other.ui["w"]["files"][0]["filename"] == "0.txt"
    again, _ = run(document())
    assert again.executed == ["w"]
    assert (tmp_path / "output/1.txt").read_text() == "3"


def test_a_file_in_somebody_elses_folder_is_not_taken_for_ones_own(run: Run, tmp_path: Path) -> None:
    for owner in ("one", "two"):
        (tmp_path / owner / "output").mkdir(parents=True)
    run(document(), root=tmp_path / "one")
    (tmp_path / "two/output/0.txt").write_text("3")
    again, _ = run(document(), root=tmp_path / "two")
    assert again.executed == ["w"]
    assert written(tmp_path / "two") == ["0.txt", "1.txt"]


def test_who_wants_files_gets_new_ones_each_time(run: Run, tmp_path: Path) -> None:
    run(document())
    for _ in range(2):
        assert run(document(), reuses_outputs=False)[0].executed == ["w"]
    assert written(tmp_path) == ["0.txt", "1.txt", "2.txt"]
