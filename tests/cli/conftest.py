import sys
from collections.abc import Iterator

import pytest

OFFERED = ("comfy", "comfy_execution", "comfy_api", "folder_paths", "custom_nodes")


@pytest.fixture
def offered_names() -> Iterator[None]:
    """Takes away again what loading node packs made importable."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in OFFERED:
            del sys.modules[name]
