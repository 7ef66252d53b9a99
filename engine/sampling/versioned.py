"""Names with revisions: `euler@2` is the second revision of `euler`. One parser, and one way to an earlier revision.

A fix that changes numbers is a new revision; what was made with an earlier one can be made again under its number.
"""

from typing import ClassVar, NamedTuple, Self, TypeVar

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.registry import Registry


class VersionedName(NamedTuple):
    """A name as a graph writes it, taken apart; `revision` is None for a bare name."""

    name: str
    revision: int | None

    @classmethod
    def parse(cls, text: str) -> "VersionedName":
        """`name` or `name@revision`."""
        name, mark, number = text.partition("@")
        if mark and not number.isdecimal():
            raise BadValue(text, number, "a whole number behind the '@'")
        return cls(name, int(number) if mark else None)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


class Versioned:
    """One revision of a registered part, which knows its earlier ones."""

    kind: ClassVar[str]
    name: str
    revision: int
    older: tuple[Self, ...]

    def at(self, revision: int | None) -> Self:
        """This part as it was at `revision`; None means the newest."""
        for one in (self, *self.older):
            if revision is None or one.revision == revision:
                return one
        raise BadValue(f"{self.kind} {self.name} revision", revision, f"1 to {self.revision}")

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


Part = TypeVar("Part", bound=Versioned)


def find(registry: Registry[Part], text: str, bare_revision: int | None = None) -> Part:
    """The part a text names; a bare name means `bare_revision` (None: the newest)."""
    name, revision = VersionedName.parse(text)
    return registry[name].at(bare_revision if revision is None else revision)
