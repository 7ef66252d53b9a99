"""What may stand inside `Annotated[...]` in a node's signature, and how each mark reads on the wire.

Marks are plain frozen records. They know ComfyUI's option names and nothing about nodes, files or torch.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sigmagraph.engine.errors import UnknownName
from sigmagraph.engine.graph.kept import Kept

if TYPE_CHECKING:  # both import this module
    from sigmagraph.engine.graph.graph import GraphNode
    from sigmagraph.engine.graph.problems import Problem

SHARD = re.compile(r"(.+)-\d{5}(-of-\d{5}\.safetensors)")
Choice = str | int | float | bool


class Services(Protocol):
    """What a node may ask of the engine that runs it; the composition root decides what is behind it."""

    @property
    def output_dir(self) -> Path:
        """Where images that are kept go."""

    @property
    def temp_dir(self) -> Path:
        """Where previews go; emptied at will."""

    def files(self, folder: str) -> list[str]:
        """The names a user may pick from a folder (`checkpoints`, `input` ...), sorted."""

    def directories(self, folder: str) -> list[Path]:
        """Where the files of a folder may lie; some need not exist."""

    def path(self, folder: str, name: str) -> Path:
        """The file behind a picked name; raises `UnknownName` or `MissingFile`, refuses escapes."""

    def content_hash(self, path: Path, like: str | None = None) -> str:
        """A digest of the file's bytes, remembered for as long as size and time stay; of the kind `like` is of."""

    def lacking(self, vertices: "Mapping[str, GraphNode]") -> "Sequence[Problem]":
        """What a graph's files need and is not there; asked while the graph is validated, so nothing is read for it."""

    def kept(self, key: str) -> Kept | None:
        """The unfinished work of the node with this content key; None where none is kept."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number widget, both inclusive.

    `step` is the editor's increment; a value off the grid `low + k * step` is refused if the range is `strict`. `grid`
    is a finer one than the editor's.
    """

    low: float
    high: float
    step: float | None = None
    round: float | None = None
    strict: bool = False
    grid: float | None = None
    display: str | None = None
    control_after_generate: bool = False

    @property
    def allowed_step(self) -> float | None:
        """The distance of allowed values; None where every value within the bounds is allowed."""
        return self.grid or (self.step if self.strict else None)

    def options(self) -> dict[str, object]:
        """The widget's options in ComfyUI's words."""
        wire: dict[str, object] = {"min": self.low, "max": self.high}
        optional = {"step": self.step, "round": self.round, "display": self.display}
        wire |= {name: value for name, value in optional.items() if value is not None}
        return wire | ({"control_after_generate": True} if self.control_after_generate else {})


@dataclass(frozen=True, slots=True)
class Options:
    """A combo: a list, or a function of the services (or of nothing) that is asked each time the list is needed.

    `named` writes the newer wire form `["COMBO", {"options": [...]}]` instead of `[[...]]`. `content` gives a digest of
    what stands behind a choice where its name does not say that, else nothing; it enters the cache key.
    """

    choices: Sequence[Choice] | Callable[[Services], Sequence[Choice]] | Callable[[], Sequence[Choice]]
    named: bool = False
    content: Callable[[str], str] | None = None

    def list(self, services: Services | None) -> list[Choice]:
        """The options now; a function that needs services gives none without them."""
        if not callable(self.choices):
            return list(self.choices)
        if not inspect.signature(self.choices).parameters:
            return list(self.choices())  # type: ignore[call-arg]  # the signature was just read
        return list(self.choices(services)) if services is not None else []  # type: ignore[call-arg]


@dataclass(frozen=True, slots=True)
class FileIn:
    """A combo of the files in one folder of the services. The file's content enters the cache key, its name does not.

    `upload` ("image", "audio", "video") puts an upload button into the editor. `composed` are names that stand for
    other files, `folder/name without its ending` each, and are offered where all of these are there. With a `marker`
    the names are those of folders that hold a file of that name; their content is that of every weight file in them. A
    shard's content is that of every shard of its model.
    """

    folder: str
    upload: str | None = None
    composed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    marker: str | None = None

    def names(self, services: Services | None) -> list[str]:
        """What can be picked now; without services, what stands for no file."""
        if services is None:
            return [name for name, parts in self.composed.items() if not parts]
        if self.marker is not None:
            files = (file.split("/")[:-1] for file in services.files(self.folder))
            folders = {"/".join(parts[:count]) for parts in files for count in range(1, len(parts) + 1)}
            return sorted(name for name in folders if self._is_marked(services, name))
        made = [name for name in self.composed if None not in self._stand_ins(services, name)]
        return [*services.files(self.folder), *made]

    def places(self, services: Services, name: str) -> list[tuple[str, str]]:
        """Folder and name of each file behind a name; raises `UnknownName` where a part is not there."""
        if self.marker is not None:
            inside = [file for file in services.files(self.folder) if file.startswith(f"{name}/")]
            return [(self.folder, file) for file in (f"{name}/{self.marker}", *inside)]
        if (shard := SHARD.fullmatch(name)) is not None:  # all of them are one model: any may change
            alike = re.compile(rf"{re.escape(shard[1])}-\d+{re.escape(shard[2])}")
            shards = [file for file in services.files(self.folder) if alike.fullmatch(file)]
            return [(self.folder, file) for file in (shards if name in shards else [name])]
        if name not in self.composed:
            return [(self.folder, name)]
        found = self._stand_ins(services, name)
        if None in found:
            raise UnknownName(f"file in {self.folder}", name, self.names(services))
        return [place for place in found if place is not None]

    def paths(self, services: Services, name: str) -> list[Path]:
        """Each file behind a name."""
        return [services.path(*place) for place in self.places(services, name)]

    def _is_marked(self, services: Services, name: str) -> bool:
        return any((folder / name / str(self.marker)).is_file() for folder in services.directories(self.folder))

    def _stand_ins(self, services: Services, name: str) -> list[tuple[str, str] | None]:
        found: list[tuple[str, str] | None] = []
        for part in self.composed[name]:
            folder, _, stem = part.rpartition("/")
            files = (file for file in services.files(folder) if file == f"{stem}.safetensors")
            found.append(next(((folder, file) for file in files), None))
        return found

    def options(self) -> dict[str, object]:
        """The widget's options in ComfyUI's words."""
        return {f"{self.upload}_upload": True} if self.upload else {}


@dataclass(frozen=True, slots=True)
class Multiline:
    """A text area; with `dynamic_prompts` the editor resolves `{a|b}` before it sends the text."""

    dynamic_prompts: bool = False
    placeholder: str | None = None

    def options(self) -> dict[str, object]:
        """The widget's options in ComfyUI's words."""
        wire: dict[str, object] = {"multiline": True}
        wire |= {"dynamicPrompts": True} if self.dynamic_prompts else {}
        return wire | ({"placeholder": self.placeholder} if self.placeholder else {})


@dataclass(frozen=True, slots=True)
class Socket:
    """The type of a link: `MODEL`, a union `INT,FLOAT`, or `*` for anything."""

    type: str


@dataclass(frozen=True, slots=True)
class Hidden:
    """An input the engine fills in: PROMPT, DYNPROMPT, EXTRA_PNGINFO, UNIQUE_ID, or an `INTERNAL` one.

    LOCK is what made this node's output (`lock.Lock`); KEPT is where its unfinished work is kept (`kept.Kept`).
    PROGRESS is for long work in which the node cannot yield: a function to call as `progress(done, whole)` now and
    then, which raises `Cancelled` where the run is to stop.
    """

    tag: str


INTERNAL = frozenset(("SERVICES", "LOCK", "KEPT", "PROGRESS"))  # tags that are never on the wire


@dataclass(frozen=True, slots=True)
class Tooltip:
    """A sentence for the editor."""

    text: str

    def options(self) -> dict[str, object]:
        """The widget's options in ComfyUI's words."""
        return {"tooltip": self.text}


@dataclass(frozen=True, slots=True)
class Optional:
    """The input may be left out even though its default is not None."""


@dataclass(frozen=True, slots=True)
class Extra:
    """Any further widget option in ComfyUI's words: `lazy`, `rawLink`, `forceInput`, `advanced`, `label_on` ..."""

    wire: dict[str, object] = field(default_factory=dict)

    def options(self) -> dict[str, object]:
        """The widget's options in ComfyUI's words."""
        return dict(self.wire)


Mark = Range | Options | FileIn | Multiline | Socket | Hidden | Tooltip | Optional | Extra
MARKS = (Range, Options, FileIn, Multiline, Socket, Hidden, Tooltip, Optional, Extra)
