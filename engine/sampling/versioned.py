"""Names with revisions: `euler@2` is the second revision of `euler`, `euler@comfyui-0.3` what that ComfyUI computes.

A fix that changes numbers is a new revision; what was made with an earlier one can be made again under its number.
"""

import re
from typing import ClassVar, NamedTuple, Self, TypeAlias, TypeVar

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.registry import Registry

Revision: TypeAlias = int | str
COMFYUI = re.compile(r"comfyui-(\d{1,4}(?:\.\d{1,4}){0,2})")
ALLOWED = "a whole number or `comfyui-VERSION` behind the '@'"


class VersionedName(NamedTuple):
    """A name as a graph writes it, taken apart; `revision` is None for a bare name."""

    name: str
    revision: Revision | None

    @classmethod
    def parse(cls, text: str) -> "VersionedName":
        """`name`, `name@2` or `name@comfyui-0.8`."""
        if not isinstance(text, str):
            raise BadValue("name", text, "a string: a name, or name@revision")
        name, mark, revision = text.partition("@")
        if not mark:
            return cls(name, None)
        if revision.isdecimal() and len(revision) < 10:
            return cls(name, int(revision))
        if not COMFYUI.fullmatch(revision):
            raise BadValue(text, revision, ALLOWED)
        return cls(name, revision)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def checked_name(kind: str, name: object) -> str:
    """A name to register: one that can be asked for."""
    if not isinstance(name, str) or not name or "@" in name:
        raise BadValue(
            f"name of a {kind}", name, "a string of one character or more, without '@': revisions are declared"
        )
    return name


class Versioned:
    """One revision of a registered part, which knows its earlier ones.

    `since`: the first ComfyUI that computes so, where that is not the ComfyUI of revision 1.
    """

    kind: ClassVar[str]
    name: str
    revision: Revision
    older: tuple[Self, ...]
    since: tuple[int, ...] = ()

    def at(self, revision: Revision | None) -> Self:
        """This part as it was at `revision`; None means the newest."""
        if isinstance(revision, str):
            return self._in_comfyui(comfyui_version(revision))
        for one in (self, *self.older):
            if revision is None or one.revision == revision:
                return one
        raise BadValue(f"{self.kind} {self.name} revision", revision, f"1 to {self.revision}")

    def _in_comfyui(self, version: tuple[int, ...]) -> Self:
        """What that ComfyUI computes: the newest that is not newer than it, else revision 1."""
        fitting = [one for one in (self, *self.older) if () < one.since <= version]
        return max(fitting, key=lambda one: one.since) if fitting else self.at(1)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


Part = TypeVar("Part", bound=Versioned)


def find(registry: Registry[Part], text: str, bare: Revision | None = None) -> Part:
    """The part a text names; a bare name means the revision `bare` (None: the newest)."""
    given: object = text
    if not isinstance(given, str):
        raise BadValue(f"name of a {registry.kind}", given, "a string: NAME or NAME@REVISION")
    name, revision = VersionedName.parse(text)
    return registry[name].at(bare if revision is None else revision)


def comfyui_version(revision: str) -> tuple[int, ...]:
    """The numbers of `comfyui-0.3.64`."""
    found = COMFYUI.fullmatch(revision)
    if found is None:
        raise BadValue("revision", revision, ALLOWED)
    return tuple(int(number) for number in found[1].split("."))
