"""Where a pack's class is written, as messages name it."""

import sys
from types import ModuleType

import pytest

from sigmagraph.engine.graph.source import source_of


@pytest.mark.parametrize(
    ("module", "file", "said"),
    [
        ("custom_nodes.foo.foo.nodes", "/srv/foo/custom_nodes/foo/foo/nodes.py", "foo/nodes.py, class Blur"),
        ("custom_nodes.foo.inner", "/packs/foo/inner/__init__.py", "inner/__init__.py, class Blur"),
        ("custom_nodes.foo", "/packs/foo/__init__.py", "__init__.py, class Blur"),
        ("elsewhere", "/packs/foo/lib/elsewhere.py", "elsewhere.py, class Blur"),
    ],
)
def test_a_class_is_named_by_its_file_within_its_pack(
    module: str, file: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ModuleType(module)
    written.__file__ = file
    monkeypatch.setitem(sys.modules, module, written)
    assert source_of(type("Blur", (), {"__module__": module}), "custom_nodes.foo") == said
    assert source_of(type("Blur", (), {"__module__": module}), "sigmagraph.nodes") == ""
