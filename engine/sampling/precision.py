"""Single precision for plain numbers, without a tensor: rules whose last bit matters were recorded in it."""

import struct


def float32(value: float) -> float:
    """The nearest single-precision number, as a Python float."""
    return float(struct.unpack("=f", struct.pack("=f", value))[0])
