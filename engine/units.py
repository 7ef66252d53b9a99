"""Units that several layers count in."""

__all__ = ["CREDIT", "DAY_S", "bytes_in_words", "counted"]

DAY_S = 86_400.0
"""Seconds of a day."""

CREDIT = 1_000_000
"""Amounts of money are whole millionths of a credit, so that no sum is ever rounded; people see credits."""


def counted(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def bytes_in_words(size_bytes: float) -> str:
    """`4.94 GB`, `95.8 MB`, `1.0 kB`: decimal units, two digits or more."""
    if size_bytes >= 1e8 or not size_bytes:
        return f"{size_bytes / 1e9:.2f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"
