"""What has to be equal on two machines for one to work for the other, and what ought to be."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

__all__ = ["differences", "environment"]

MUST = ("sigmagraph", "python")
OUGHT = ("torch", "numpy", "safetensors", "transformers")


def environment() -> dict[str, str]:
    """The versions here; of Python the two parts that count. Imports nothing."""
    major, minor, _ = platform.python_version_tuple()
    return {"python": f"{major}.{minor}", **{name: _version(name) for name in ("sigmagraph", "ray", *OUGHT)}}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What keeps the machine from working for us, and what only may change the last bits of results."""

    def differing(names: tuple[str, ...]) -> list[str]:
        pairs = ((name, here.get(name, "none"), there.get(name, "none")) for name in names)
        return [f"{name} {theirs} where the front has {ours}" for name, ours, theirs in pairs if ours != theirs]

    return differing(MUST), differing(OUGHT)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
