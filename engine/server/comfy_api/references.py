"""`core/ASSET` references: `{"__type": "core/ASSET", "info": {"id", "hash", "file_path"}}` becomes a file's name."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from sigmagraph.engine.server.comfy_api.refusals import Declined

__all__ = ["resolved"]

MARK = "core/ASSET"
Find = Callable[[str | None, str | None], Awaitable[str | None]]
"""The name a loader node takes for an asset's id, else its hash; None where the caller has no such asset."""


async def resolved(document: Any, find: Find) -> Any:
    """The document with every reference replaced; raises `Declined` naming all that lead nowhere.

    Each is looked for on the event loop, never from a thread that waits for it: looking takes threads of its own.
    """
    marks = await asyncio.to_thread(lambda: dict.fromkeys(map(_meant, _marked(document))))
    if not marks:
        return document
    names = {meant: await find(*meant) for meant in marks}
    missing = [next(filter(None, meant), "(no id)")[:80] for meant, name in names.items() if name is None]
    if missing:
        listed = ", ".join(missing[:20])
        raise Declined(422, "missing_asset", f"there are no such assets: {listed}", missing_ids=missing[:100])
    return await asyncio.to_thread(_replaced, document, names)


def _marked(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every reference of a document."""
    if isinstance(value, dict):
        if value.get("__type") == MARK:
            yield value
            return
        value = list(value.values())
    for entry in value if isinstance(value, list) else ():
        yield from _marked(entry)


def _meant(reference: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The id and the hash it names."""
    info = reference.get("info")
    given = [info.get(name) if isinstance(info, dict) else None for name in ("id", "hash")]
    asset_id, digest = (value if isinstance(value, str) else None for value in given)
    return asset_id, digest


def _replaced(value: Any, names: Mapping[tuple[str | None, str | None], str | None]) -> Any:
    if isinstance(value, dict):
        if value.get("__type") == MARK:
            return names[_meant(value)]
        return {name: _replaced(entry, names) for name, entry in value.items()}
    return [_replaced(entry, names) for entry in value] if isinstance(value, list) else value
