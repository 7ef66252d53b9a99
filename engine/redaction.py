"""What of a value an error or a log may repeat: a secret is told by its length only, wherever it stands.

One rule for headers, fields of bodies and addresses. A place that is called after a secret (`X-Webhook-Secret`,
`webhook.secret`, `api_key`) hides its value. In other text, what follows such a name is hidden, and so are signing
secrets (`whsec_...`) and passwords in addresses.
"""

import re

__all__ = ["NotShown", "redacted", "shortened", "shown", "without_password"]

NAMES = r"(?:secret|password|passwd|authorization|cookie|api[-_ ]?key|auth[-_ ]?token)"
PLACE = re.compile(rf"(?i)(?<![a-z]){NAMES}s?(?![a-z])")
IN_TEXT = re.compile(rf"(?is)(?<![a-z])({NAMES}[\w ]{{0,20}}[\"']{{0,2}}\s{{0,9}}[:=]).*")
SIGNING = re.compile(r"whsec_[\w+/=-]*")
OPTION = re.compile(r"(?i)([?&;][^=&;?]{0,99}(?:password|passwd|secret|token|key)[^=&;?]{0,99}=)[^&;]*")
LONGEST = 2048
"""Characters of a value that an error repeats."""


class NotShown:
    """Stands for a value that is not shown: its kind and size."""

    def __init__(self, value: object) -> None:
        if isinstance(value, str):
            size = f"{len(value)} characters"
        elif isinstance(value, dict | list | tuple):
            size = f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
        else:
            size = f"a {type(value).__name__}"
        self._text = f"({size}, not shown)"

    def __repr__(self) -> str:
        return self._text


def redacted(place: str, value: object) -> object:
    """The value as an error about this place may repeat it."""
    if value is not None and PLACE.search(place):
        return NotShown(value)
    if isinstance(value, str):
        return without_password(IN_TEXT.sub(r"\1***", SIGNING.sub("whsec_***", shortened(value))))
    if isinstance(value, dict | list | tuple) and _names_secret(value):
        return NotShown(value)
    return value


def shortened(text: str) -> str:
    """The beginning of a long string; others as they are."""
    return text if len(text) <= LONGEST + 3 else text[:LONGEST] + "…"  # 3: quotes round one that was shortened before


def shown(value: object) -> str:
    """The value's `repr`, shortened; of one that has none, its type; of a tensor or an array, kind and shape."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and shape and dtype is not None:
        return f"a {type(value).__name__} of shape {tuple(shape)}, {dtype}"
    try:
        return shortened(repr(value))
    except Exception:  # noqa: BLE001  # anyone's `__repr__`; Python itself refuses whole numbers of 4,300 digits
        return f"({type(value).__name__}, too long to show)" if isinstance(value, int) else f"({type(value).__name__})"


def _names_secret(value: object) -> bool:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # anyone's `__repr__`, or a number that Python does not write out
        return False  # `shown` fails in the same way, and shows nothing of it
    return "whsec_" in text or "://" in text or PLACE.search(text) is not None


def without_password(address: str) -> str:
    """An address with `***` for its password, wherever it stands: before the host, or among the options."""
    hidden = re.sub(r"(://[^:/@?#]*:).*(@)", r"\1***\2", address)
    return OPTION.sub(r"\1***", hidden)
