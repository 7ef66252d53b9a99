"""Single precision for plain numbers, without a tensor: rules whose last bit matters were recorded in it."""

import struct
from collections.abc import Callable


def float32(value: float) -> float:
    """The nearest single-precision number, as a Python float."""
    return float(struct.unpack("=f", struct.pack("=f", value))[0])


def is_in_time(sigma: float, start: float, end: float, percent_to_sigma: Callable[[float], float]) -> bool:
    """Whether a noise level lies between two shares of the way, both of which count, to single precision."""
    level = float32(sigma)
    begins = start <= 0 or level <= float32(percent_to_sigma(start))
    return begins and (end >= 1 or level >= float32(percent_to_sigma(end)))
