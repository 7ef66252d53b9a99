"""What comes with the code: pages, workflows, the demo checkpoint. In a checkout beside it, else where pip put it."""

import os
import sysconfig
from pathlib import Path

__all__ = ["ENDPOINTS", "IS_CHECKOUT", "SHIPPED", "shipped_models"]

BESIDE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (BESIDE / "pyproject.toml").is_file() and (BESIDE / "web").is_dir()


def _installed() -> Path:
    """`share/sigmagraph` of the environment, or of the user where it was installed for one."""
    schemes = (sysconfig.get_default_scheme(), f"{os.name}_user")
    places = [Path(sysconfig.get_path("data", scheme)) / "share" / "sigmagraph" for scheme in schemes]
    return next((place for place in places if place.is_dir()), places[0])


SHIPPED = BESIDE if IS_CHECKOUT else _installed()
"""The folder that holds web/, workflows/ and models/."""
ENDPOINTS = SHIPPED / "workflows" / "endpoints"
"""The published workflows."""


def shipped_models() -> dict[str, list[Path]]:
    """Model folders of a wheel by name, searched after the home's; a checkout's models are its home's own."""
    folders = sorted(path for path in (SHIPPED / "models").glob("*") if path.is_dir())
    return {} if IS_CHECKOUT else {folder.name: [folder] for folder in folders}
