"""Regular expressions in Python's syntax, each with a limit of time: a few characters can ask for years."""

from itertools import islice
from typing import Annotated

from sigmagraph.engine.graph.node import Multiline, Optional, Options, Output, Range, Tooltip, node
from sigmagraph.nodes.support.lengths import bounded
from sigmagraph.nodes.support.patterns import Pattern

__all__ = ["NODES"]

Text = Annotated[str, Multiline()]
Regex = Annotated[str, Multiline()]
MODES = ("First Match", "All Matches", "First Group", "All Groups")


@node("RegexMatch", category="utils/string", display_name="Regex Match", outputs=[Output("BOOLEAN", "matches")])
def regex_match(
    *, string: Text, regex_pattern: Regex, case_insensitive: bool = True, multiline: bool = False, dotall: bool = False
) -> bool:
    """Whether the pattern occurs; a broken pattern occurs nowhere."""
    pattern = Pattern.sound(regex_pattern, case_insensitive, multiline, dotall)
    return pattern is not None and next(pattern.matches(string), None) is not None


@node("RegexExtract", category="utils/string", display_name="Regex Extract")
def regex_extract(
    *,
    string: Text,
    regex_pattern: Regex,
    mode: Annotated[str, Options(list(MODES), named=True)],
    case_insensitive: bool = True,
    multiline: bool = False,
    dotall: bool = False,
    group_index: Annotated[int, Range(0, 100)] = 1,
) -> str:
    """What the pattern, or a group of it, finds: once, or everywhere, a line each; nothing for a broken pattern."""
    pattern = Pattern.sound(regex_pattern, case_insensitive, multiline, dotall)
    if pattern is None:
        return ""
    if mode == "All Matches":
        group = min(pattern.groups, 1)  # as `re.findall` has it: the first group where there is one
    else:
        group = group_index if mode.endswith(("Group", "Groups")) else 0
    if group > pattern.groups or (mode == "All Groups" and not pattern.groups):
        return ""
    found = (match.group(group) or "" for match in pattern.matches(string))
    return bounded("\n".join(islice(found, 1 if mode.startswith("First") else None)), "string")


@node("RegexReplace", category="utils/string", display_name="Regex Replace")
def regex_replace(
    *,
    string: Text,
    regex_pattern: Regex,
    replace: Text,
    case_insensitive: Annotated[bool, Optional()] = True,
    multiline: Annotated[bool, Optional()] = False,
    dotall: Annotated[bool, Optional(), Tooltip("Whether a dot stands for a line break too.")] = False,
    count: Annotated[int, Optional(), Range(0, 100), Tooltip("How many at most; 0 is all.")] = 0,
) -> str:
    r"""Replace what the pattern finds; `\1` and `\g<name>` in the replacement are its groups."""
    return Pattern(regex_pattern, case_insensitive, multiline, dotall).replaced(string, replace, count)


NODES = (regex_match, regex_extract, regex_replace)
