"""Real files with parts taken out, doubled and exchanged: the reader takes them or refuses them, in its own words.

Needs the package comfyui-workflow-templates-json; run with `pytest -m templates`. `SIGMAGRAPH_FUZZ` is how many.
"""

import contextlib
import copy
import importlib.metadata
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES

pytestmark = pytest.mark.templates

COUNT = int(os.environ.get("SIGMAGRAPH_FUZZ", "1000"))
LARGEST_BYTES = 400_000
SLOWEST_S = 2.0
ODD: list[Any] = [
    None, True, 0, -1, -10, 1.5, 1e308, float("nan"), 10**30, "", "a", "1", "x" * 1000, [], {}, [[]], [1, 2], ["1", 0],
    {"a": 1},
]  # fmt: skip
KEYS = ("id", "type", "inputs", "links", "mode", "widgets_values", "properties", "definitions", "extra", "nodes")


def documents() -> Iterator[Any]:
    package = importlib.metadata.distribution("comfyui-workflow-templates-json")
    for path in sorted(Path(str(package.locate_file("comfyui_workflow_templates_json"))).rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        if len(text) < LARGEST_BYTES and isinstance(json.loads(text), dict):
            yield json.loads(text)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutate(document: Any, rng: random.Random) -> None:
    found = list(places(document))
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        container, key = rng.choice(found)
        other, other_key = rng.choice(found)
        with contextlib.suppress(KeyError, IndexError):  # an earlier change took the place away
            match rng.randrange(5):
                case 0 | 1:
                    container[key] = copy.deepcopy(rng.choice(ODD))
                case 2:
                    del container[key]
                case 3:
                    container[key] = copy.deepcopy(other[other_key])
                case _ if isinstance(container, list):
                    container.insert(key, copy.deepcopy(container[key]))
                case _:
                    container[rng.choice(KEYS)] = copy.deepcopy(container[key])


def test_mutated_files_are_read_or_refused_and_quickly() -> None:
    declarations = {name: node.object_info() for name, node in NODES.items()}
    known, rng, refused = list(documents()), random.Random(0), 0
    for _ in range(COUNT):
        document = copy.deepcopy(rng.choice(known))
        mutate(document, rng)
        began = time.process_time()
        try:
            validate(parse_workflow(document, declarations), NODES)
        except EngineError:
            refused += 1
        assert time.process_time() - began < SLOWEST_S
    assert refused > COUNT / 2
