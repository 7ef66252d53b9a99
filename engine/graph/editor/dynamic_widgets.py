"""Dynamic inputs in the editor: a class's declaration laid out for one node, by the values the file has for it.

A choice brings the widgets of its option, right behind it; a list that grows has sockets alone and no place among the
values.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sigmagraph.engine.graph.dynamic import AUTOGROW, COMBO, SLOT

__all__ = ["is_dynamic", "laid_out"]

Declaration = Mapping[str, Any]
Spec = Sequence[Any]
Choose = Callable[[str, list[str]], str]


def is_dynamic(declaration: Declaration) -> bool:
    """Whether a class has inputs that depend on others."""
    groups = declaration.get("input")
    specs = [spec for group in (groups.values() if isinstance(groups, Mapping) else ()) for spec in _items(group)]
    return any(_kind(spec) in (COMBO, AUTOGROW, SLOT) for _, spec in specs)


def laid_out(declaration: Declaration, chosen: Choose, linked: Callable[[str], bool]) -> Declaration:
    """The declaration with plain inputs only.

    `chosen(name, keys)` is the key of a choice; `linked(name)` says whether a socket has a link.
    """
    groups = {group: dict(_flat(_ordered(declaration, group), chosen, linked)) for group in ("required", "optional")}
    hidden = {name: specs for name, specs in (declaration.get("input") or {}).items() if name not in groups}
    return {
        **declaration,
        "input": {**hidden, **groups},
        "input_order": {name: list(names) for name, names in groups.items()},
    }


def _flat(specs: Sequence[tuple[str, Spec]], chosen: Choose, linked: Callable[[str], bool]) -> list[tuple[str, Spec]]:
    flat: list[tuple[str, Spec]] = []
    for name, spec in specs:
        kind, options = _kind(spec), _options(spec)
        if kind == COMBO:
            listed = [option for option in options.get("options") or () if isinstance(option, Mapping)]
            keys = [str(option.get("key")) for option in listed]
            flat.append((name, [keys, {key: value for key, value in options.items() if key != "options"}]))
            key = chosen(name, keys)
            inner = next((option.get("inputs") for option in listed if str(option.get("key")) == key), None)
            flat += _flat(_dotted(name, inner), chosen, linked)
        elif kind == SLOT:
            flat.append((name, [options.get("slotType", "*"), {"forceInput": True}]))
            flat += _flat(_dotted(name, options.get("inputs")), chosen, linked) if linked(name) else []
        elif kind != AUTOGROW:
            flat.append((name, spec))
    return flat


def _dotted(name: str, groups: Any) -> list[tuple[str, Spec]]:
    """The inputs of an option under their wire names."""
    listed = groups.values() if isinstance(groups, Mapping) else ()
    return [(f"{name}.{inner}", spec) for group in listed for inner, spec in _items(group)]


def _ordered(declaration: Declaration, group: str) -> list[tuple[str, Spec]]:
    specs = dict(_items((declaration.get("input") or {}).get(group)))
    order = (declaration.get("input_order") or {}).get(group) or list(specs)
    return [(name, specs[name]) for name in order if name in specs]


def _items(group: Any) -> list[tuple[str, Spec]]:
    return [(str(n), s) for n, s in group.items() if isinstance(s, list | tuple)] if isinstance(group, Mapping) else []


def _kind(spec: Spec) -> Any:
    return spec[0] if spec and isinstance(spec[0], str) else None


def _options(spec: Spec) -> Mapping[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
