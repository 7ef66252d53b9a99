"""The metadata of a file of tensors (`.latent`, `.safetensors`): a JSON header of a stated length. Reads no tensor."""

import json

from sigmagraph.engine.errors import BadDocument

__all__ = ["is_tensor_file", "metadata_of_tensors"]

MAX_HEADER = 100_000_000  # bytes, as the format has it


def is_tensor_file(data: bytes) -> bool:
    """Whether the bytes begin as such a file: a length of eight bytes that fits, and an object behind it."""
    return len(data) > 9 and data[8:9] == b"{" and _length(data) <= min(MAX_HEADER, len(data) - 8)


def _length(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


def metadata_of_tensors(data: bytes) -> dict[str, str]:
    """Keyword -> text of the header's `__metadata__`."""
    try:
        header = json.loads(data[8 : 8 + _length(data)])
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"file of tensors: its header is not JSON: {error}") from error
    found = header.get("__metadata__") if isinstance(header, dict) else None
    texts = found if isinstance(found, dict) else {}
    return {str(name).lower(): text for name, text in texts.items() if isinstance(text, str)}
