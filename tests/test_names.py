"""A name means one thing: public classes of the package have names of their own."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GIVEN_ELSEWHERE = frozenset({"packs", "schema", "shims", "solvers"})
"""Folders of names that ComfyUI's packs import, and of what solvers remember, named as their papers have it."""


def test_a_public_class_name_is_given_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for folder in ("engine", "nodes", "sigmagraph"):
        for path in (ROOT / folder).glob("*.py" if folder == "sigmagraph" else "**/*.py"):
            if path.parent.name in GIVEN_ELSEWHERE:
                continue
            for statement in ast.parse(path.read_text("utf-8")).body:
                if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
                    places[statement.name].append(path.relative_to(ROOT).as_posix())
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert twice == {}
