"""Editor documents into API prompts."""

from collections.abc import Mapping
from typing import Any

from engine.errors import BadDocument


def convert(document: Mapping[str, Any], declarations: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The API prompt of an editor document, and warnings."""
    raise BadDocument("this is the editor's form of a workflow; export it in API form")
