"""Offered as `comfy_api.latest.ui`: what nodes of the newer schema show beside their values."""

from collections.abc import Sequence
from typing import Any

from sigmagraph.engine.graph.schema.io import FolderType

__all__ = ["PreviewText", "SavedImages", "SavedResult"]


class SavedResult(dict[str, Any]):
    """A file that was written, as the page asks for it again."""

    def __init__(self, filename: str, subfolder: str, type: FolderType | str) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=str(getattr(type, "value", type)))


class SavedImages:
    """Pictures that were written."""

    def __init__(self, results: Sequence[SavedResult], is_animated: bool = False) -> None:
        self.results, self.is_animated = list(results), is_animated

    def as_dict(self) -> dict[str, Any]:
        """The record of the user interface."""
        return {"images": self.results} | ({"animated": (True,)} if self.is_animated else {})


class PreviewText:
    """A string to show."""

    def __init__(self, value: Any, **_: Any) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        """The record of the user interface."""
        return {"text": (self.value,)}
