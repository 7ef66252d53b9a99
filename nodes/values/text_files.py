"""Strings kept in files of the output folder."""

import json
from datetime import datetime
from typing import Annotated

from sigmagraph.engine.graph.node import Extra, Optional, Options, Tooltip, UiResult, node
from sigmagraph.engine.writing import write_new
from sigmagraph.nodes.images.image import PREFIX_TIP
from sigmagraph.nodes.support.lengths import bounded
from sigmagraph.nodes.support.naming import series
from sigmagraph.nodes.support.types import Engine

__all__ = ["NODES"]

FORMATS = ("txt", "csv", "md", "json")


@node("SaveText", category="utils/string", display_name="Save Text", output_node=True, outputs=["STRING"])
def save_text(
    *,
    text: Annotated[str, Extra({"forceInput": True})],
    filename_prefix: Annotated[str, Optional(), Tooltip(PREFIX_TIP)] = "ComfyUI",
    format: Annotated[str, Optional(), Options(list(FORMATS), named=True)] = "txt",
    services: Engine,
) -> UiResult:
    """Save a string as a numbered file in the output folder; as json, what is JSON is laid out in lines."""
    files = series(services.output_dir, filename_prefix, 0, 0, datetime.now().astimezone())
    data = (_laid_out(bounded(text, "text")) if format == "json" else bounded(text, "text")).encode("utf-8", "replace")
    path = write_new(files.folder, files.names(0, f".{format}"), data)
    shown = {"filename": path.name, "subfolder": files.subfolder, "type": "output"}
    return UiResult(text, {"text": [text], "files": [shown]})


def _laid_out(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


NODES = (save_text,)
