"""`core/ASSET` references: `{"__type": "core/ASSET", "info": {"id", "hash", "file_path"}}` becomes a file's name."""

from collections.abc import Callable, Mapping
from typing import Any

from sigmagraph.engine.server.comfy_api.refusals import Declined

__all__ = ["resolved"]

MARK = "core/ASSET"
Find = Callable[[Mapping[str, Any]], str | None]
"""The name a loader node takes for a reference's `info`; None where the caller has no such asset."""


def resolved(document: Any, find: Find) -> Any:
    """The document with every reference replaced; raises `Declined` naming all that lead nowhere."""
    missing: list[str] = []
    found = _replaced(document, find, missing)
    if missing:
        listed = ", ".join(missing[:20])
        raise Declined(422, "missing_asset", f"there are no such assets: {listed}", missing_ids=missing[:100])
    return found


def _replaced(value: Any, find: Find, missing: list[str]) -> Any:
    if isinstance(value, dict):
        if value.get("__type") != MARK:
            return {name: _replaced(entry, find, missing) for name, entry in value.items()}
        info = value.get("info")
        name = find(info) if isinstance(info, dict) else None
        if name is None:
            missing.append(str(info.get("id", "(no id)"))[:80] if isinstance(info, dict) else "(no info)")
        return name
    return [_replaced(entry, find, missing) for entry in value] if isinstance(value, list) else value
