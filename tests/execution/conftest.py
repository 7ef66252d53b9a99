import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack, load_packs, shim_modules
from sigmagraph.engine.graph.node import Node
from tests.execution.running import Stage
from tests.graph.small import NODES

PACKS = Path(__file__).parent / "packs"


class NodeSet(dict[str, Node]):
    """Nodes by name that print short: property tests show their arguments."""

    def __repr__(self) -> str:
        return f"{len(self)} nodes"


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pack]]:
    """The packs of this folder, loaded by the public loader; the offered modules are taken away again."""
    root = tmp_path_factory.mktemp("files")
    folders = Folders(root / "models", root / "input", root / "output", root / "temp")
    before = set(sys.modules)
    yield {pack.name: pack for pack in load_packs([PACKS], shim_modules(folders))}
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("comfy", "comfy_execution", "comfy_api", "folder_paths", "custom_nodes"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def nodes(packs: dict[str, Pack]) -> dict[str, Node]:
    """The small nodes and those of the rules pack."""
    return NodeSet({**NODES, **packs["rules"].nodes})


@pytest.fixture
def stage(nodes: dict[str, Node]) -> Stage:
    """A stage with them."""
    return Stage(nodes)


@pytest.fixture
def calls(packs: dict[str, Pack]) -> list[tuple[str, Any]]:
    """What the classes of the pack note down."""
    noted: list[tuple[str, Any]] = sys.modules["custom_nodes.rules.basics"].CALLS
    noted.clear()
    return noted


@pytest.fixture
def classes(packs: dict[str, Pack]) -> dict[str, Any]:
    """The classes themselves."""
    found: dict[str, Any] = sys.modules["custom_nodes.rules"].NODE_CLASS_MAPPINGS
    return found
