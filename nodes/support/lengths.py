"""How long a string may become: small inputs can make one that fills the memory."""

from sigmagraph.engine.errors import BadValue

__all__ = ["MAX_CHARACTERS", "bounded"]

MAX_CHARACTERS = 10_000_000


def bounded(text: str, place: str, added: int = 0) -> str:
    """`text`, if it and what is `added` to it have at most `MAX_CHARACTERS`."""
    if len(text) + added > MAX_CHARACTERS:
        raise BadValue(place, f"a result of {len(text) + added:,} characters", f"at most {MAX_CHARACTERS:,}")
    return text
