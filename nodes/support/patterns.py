"""Regular expressions that end in time, by the `regex` package in the dialect of Python's own `re`.

`re` cannot be stopped and holds the interpreter while it searches; `regex` gives it up and keeps a limit.
"""

from collections.abc import Iterator

import regex

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes.support.lengths import bounded

__all__ = ["LIMIT_S", "Pattern"]

LIMIT_S = 5.0
MAX_PATTERN = 10_000  # characters


class Pattern:
    """A compiled pattern. Raises `BadValue` for a broken one, and where a search takes longer than `LIMIT_S`."""

    def __init__(self, written: str, ignores_case: bool, is_multiline: bool, dot_is_all: bool) -> None:
        if len(written) > MAX_PATTERN:
            raise BadValue("regex_pattern", f"{len(written):,} characters", f"at most {MAX_PATTERN:,}")
        chosen = ((ignores_case, regex.IGNORECASE), (is_multiline, regex.MULTILINE), (dot_is_all, regex.DOTALL))
        flags = sum(flag for is_set, flag in chosen if is_set) | regex.VERSION0
        self.written = written
        try:
            self._compiled = regex.compile(written, flags)
        except (regex.error, ValueError, OverflowError, RecursionError) as error:
            raise BadValue("regex_pattern", written, f"a regular expression ({error})") from error

    @classmethod
    def sound(cls, written: str, ignores_case: bool, is_multiline: bool, dot_is_all: bool) -> "Pattern | None":
        """The pattern, or None for a broken one."""
        try:
            return cls(written, ignores_case, is_multiline, dot_is_all)
        except BadValue:
            return None

    @property
    def groups(self) -> int:
        """How many groups it has."""
        return int(self._compiled.groups)

    def matches(self, text: str) -> "Iterator[regex.Match[str]]":
        """Every match, one after the other."""
        try:
            yield from self._compiled.finditer(text, timeout=LIMIT_S, concurrent=True)
        except TimeoutError as error:
            raise self._too_slow() from error

    def replaced(self, text: str, template: str, count: int) -> str:
        """The text with `count` matches (0: all) replaced by what the template makes of them."""
        made = 0

        def replacement(match: "regex.Match[str]") -> str:
            nonlocal made
            part = match.expand(template)
            made += len(part)
            bounded(part, "replace", added=made)
            return str(part)

        try:
            self._on_nothing().expand(template)  # a broken template is one even where nothing matches
            return bounded(str(self._compiled.sub(replacement, text, count=count, timeout=LIMIT_S)), "string")
        except TimeoutError as error:
            raise self._too_slow() from error
        except (regex.error, IndexError) as error:
            raise BadValue("replace", template, f"a replacement for this pattern ({error})") from error

    def _on_nothing(self) -> "regex.Match[str]":
        """A match with this pattern's groups on an empty string."""
        found = regex.compile(f"{self.written}\n|", self._compiled.flags).match("", timeout=LIMIT_S)
        assert found is not None  # its last alternative is empty
        return found

    def _too_slow(self) -> BadValue:
        return BadValue("regex_pattern", self.written, f"a pattern that searches this string within {LIMIT_S:g} s")
