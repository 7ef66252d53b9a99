"""What a node may hand back beside plain values: progress while it works, user-interface records when it is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """`value` of `maximum` done. Yielded by generator nodes; each yield is a place to report, cancel or interleave.

    `preview` is opaque to the engine: whatever the front end of the job knows how to show.
    """

    value: float
    maximum: float
    preview: Any = None


@dataclass(frozen=True, slots=True)
class UiResult:
    """A node's value together with what the user interface shows, `{"images": [{filename, subfolder, type}]}`."""

    value: Any = None
    ui: Mapping[str, Any] = field(default_factory=dict)
