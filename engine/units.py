"""Units that several layers count in."""

__all__ = ["CREDIT", "DAY_S"]

DAY_S = 86_400.0
"""Seconds of a day."""

CREDIT = 1_000_000
"""Amounts of money are whole millionths of a credit, so that no sum is ever rounded; people see credits."""
