"""A mapping from name to part. Duplicates raise, unknown names suggest; nothing here knows what a part is."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from sigmagraph.engine.errors import DuplicateName, UnknownName
from sigmagraph.engine.redaction import shown

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Parts of one kind by name, in the order they were added.

    Raises `UnknownName` (with the nearest name) on a look-up that fails and `DuplicateName` on a name taken.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}

    def add(self, name: str, part: T) -> T:
        """Register `part` under `name` and hand it back."""
        if name in self._parts:
            raise DuplicateName(f"{self.kind} {shown(name)} is registered already")
        self._parts[name] = part
        return part

    def discard(self, name: str) -> None:
        """Forget the part of that name, if there is one."""
        self._parts.pop(name, None)

    def arrange(self, first: Iterable[str]) -> None:
        """Put these names first, in this order; the others follow as they were added."""
        self._parts = {name: self[name] for name in first} | self._parts

    def copy(self) -> "Registry[T]":
        """An independent registry with the same parts, for tests and plugins."""
        other: Registry[T] = Registry(self.kind)
        other._parts.update(self._parts)
        return other

    def __getitem__(self, name: str) -> T:
        try:
            return self._parts[name]
        except KeyError:
            raise UnknownName(self.kind, name, self._parts) from None

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)
