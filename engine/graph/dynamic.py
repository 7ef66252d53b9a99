"""Inputs that depend on other inputs: a choice that brings inputs of its own, a list that grows, types that must match.

On the wire such inputs have dotted names (`resize_type.width`, `images.image0`), and one declaration stands for all of
them. `resolved` lays a node out for the inputs one workflow gives it: from there on it is an ordinary node with a flat
list of inputs. Its function receives the dotted ones folded into one dict per dynamic input.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sigmagraph.engine.graph.annotations import Options
from sigmagraph.engine.graph.workflow import Link

if TYPE_CHECKING:  # `node` imports this module
    from sigmagraph.engine.graph.node import Input, Node

__all__ = ["MATCH_TYPE", "Autogrow", "Dynamic", "DynamicCombo", "DynamicSlot", "MatchType", "resolved"]

COMBO, AUTOGROW, SLOT = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3", "COMFY_DYNAMICSLOT_V3"
MATCH_TYPE = "COMFY_MATCHTYPE_V3"


@dataclass(frozen=True)
class DynamicCombo:
    """A choice with inputs for each option. The function receives `{<own name>: key, <input>: value, ...}`."""

    options: Mapping[str, Sequence["Input"]]

    def wire(self) -> dict[str, Any]:
        """The options in the form of `/object_info`."""
        return {"options": [{"key": key, "inputs": _groups(inputs)} for key, inputs in self.options.items()]}

    def flat(self, own: "Input", given: Mapping[str, Any]) -> Iterator["Input"]:
        """The combo, then the inputs of the option chosen; of all options where the choice comes by a link."""
        first = next(iter(self.options), "")
        yield replace(own, type="COMBO", dynamic=None, choices=Options(tuple(self.options)), default=first)
        chosen = given.get(own.name, first)
        if isinstance(chosen, Link):
            listed = {
                declared.name: replace(declared, group="optional")
                for some in self.options.values()
                for declared in some
            }
            inputs: Sequence[Input] = tuple(listed.values())
        else:
            inputs = self.options.get(chosen, ()) if isinstance(chosen, str) else ()
        for declared in inputs:
            yield from flattened(replace(declared, name=f"{own.name}.{declared.name}"), given)


@dataclass(frozen=True)
class Autogrow:
    """A list of equal inputs that grows as they are linked; `names` are those there may be, `least` are required.

    `prefix` writes the names as `prefix0`, `prefix1`, ... The function receives `{name: value}` of those given.
    """

    template: "Input"
    names: tuple[str, ...]
    least: int = 1
    prefix: str | None = None

    @classmethod
    def numbered(cls, template: "Input", prefix: str, least: int = 1, most: int = 10) -> "Autogrow":
        """Inputs `prefix0` to `prefix<most - 1>`."""
        return cls(template, tuple(f"{prefix}{at}" for at in range(most)), least, prefix)

    def wire(self) -> dict[str, Any]:
        """The template in the form of `/object_info`."""
        template: dict[str, Any] = {"input": _groups([self.template])}
        if self.prefix is not None:
            template |= {"prefix": self.prefix, "min": self.least, "max": len(self.names)}
        else:
            template |= {"names": list(self.names), "min": self.least}
        return {"template": template}

    def flat(self, own: "Input", given: Mapping[str, Any]) -> Iterator["Input"]:
        """The inputs that are required or given."""
        for at, name in enumerate(self.names):
            dotted = f"{own.name}.{name}"
            is_required = at < self.least and own.group == "required" and self.template.group == "required"
            if is_required or dotted in given:
                yield from flattened(
                    replace(self.template, name=dotted, group="required" if is_required else "optional"), given
                )


@dataclass(frozen=True)
class DynamicSlot:
    """A socket that brings further inputs once something is linked to it."""

    slot: "Input"
    inputs: Sequence["Input"]

    def wire(self) -> dict[str, Any]:
        """The slot and its inputs in the form of `/object_info`."""
        return {"slotType": str(self.slot.type), "inputs": _groups(self.inputs), "forceInput": True}

    def flat(self, own: "Input", given: Mapping[str, Any]) -> Iterator["Input"]:
        """The slot alone, or with its inputs."""
        yield replace(self.slot, name=own.name, group=own.group)
        for declared in self.inputs if own.name in given else ():
            yield from flattened(replace(declared, name=f"{own.name}.{declared.name}"), given)


@dataclass(frozen=True, slots=True)
class MatchType:
    """What inputs and outputs of one `template` have in common: whatever type is linked, within `allowed`."""

    template: str
    allowed: str = "*"

    def wire(self) -> dict[str, Any]:
        """The template in the form of `/object_info`."""
        return {"template": {"template_id": self.template, "allowed_types": self.allowed}}


Dynamic = DynamicCombo | Autogrow | DynamicSlot
TYPES: Mapping[type, str] = {DynamicCombo: COMBO, Autogrow: AUTOGROW, DynamicSlot: SLOT}


def _groups(inputs: Sequence["Input"]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {"required": {}}
    for declared in inputs:
        groups.setdefault(declared.group, {})[declared.name] = declared.spec(None)
    return groups


def flattened(own: "Input", given: Mapping[str, Any]) -> Iterator["Input"]:
    """An input as it is, or the inputs it stands for."""
    if own.dynamic is None:
        yield own
    else:
        yield from own.dynamic.flat(own, given)


def resolved(node: "Node", given: Mapping[str, Any]) -> "Node":
    """The node laid out for the inputs that a workflow gives it; the node itself where nothing is dynamic."""
    if not node.is_dynamic:
        return node
    flat = tuple(laid for own in node.inputs for laid in flattened(own, given))
    fold = Fold(
        tuple(declared.name for declared in node.inputs if declared.dynamic is not None),
        tuple(declared.name for declared in flat),
    )
    return replace(
        node,
        inputs=flat,
        function=fold.method(node.function, node),
        lazy_status=fold.method(node.lazy_status, node) if node.lazy_status is not None else None,
        fingerprint=fold.around(node.fingerprint) if node.fingerprint is not None else None,
        validator=fold.around(node.validator) if node.validator is not None else None,
    )


@dataclass(frozen=True)
class Fold:
    """Dotted keyword arguments into one dict per dynamic input, around a node's function and hooks."""

    dynamic: tuple[str, ...]
    flat: tuple[str, ...]

    def method(self, function: Callable[..., Any], node: "Node") -> Callable[..., Any]:
        """A function of the node; where a class makes an instance to call on, what gives its method."""
        return self.around(function) if node.instance is None else lambda instance: self.around(function(instance))

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, called with folded arguments. Its signature names the dotted inputs: hooks are read by name.

        A hook that does not name a dynamic input is not given an empty one.
        """
        parameters = inspect.signature(function).parameters
        takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        unnamed: frozenset[str] = frozenset() if takes_all else frozenset(self.dynamic) - parameters.keys()

        def call(**flat: Any) -> Any:
            folded = self.folded(flat)
            return function(**{name: value for name, value in folded.items() if value or name not in unnamed})

        call.__signature__ = self._signature(parameters)  # type: ignore[attr-defined]  # what `inspect.signature` reads
        return call

    def _signature(self, parameters: Mapping[str, inspect.Parameter]) -> inspect.Signature:
        names: list[inspect.Parameter] = []
        for parameter in parameters.values():
            own = (
                [name for name in self.flat if name.partition(".")[0] == parameter.name]
                if parameter.name in self.dynamic
                else []
            )
            # a dotted name is not an identifier: the parameter is made as one and then renamed
            names += [_Dotted(name) for name in own] if own else [parameter]
        return inspect.Signature(names, __validate_parameters__=False)

    def folded(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """`{"mode": "a", "mode.width": 3}` becomes `{"mode": {"mode": "a", "width": 3}}`; nested ones likewise."""
        plain: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {name: {} for name in self.dynamic}
        for name, value in flat.items():
            head, dot, rest = name.partition(".")
            if head not in parts:
                plain[name] = value
            elif dot:
                _put(parts[head], rest, value)
            else:
                parts[head][name] = value
        return {**plain, **parts}


def _put(into: dict[str, Any], path: str, value: Any) -> None:
    """Set `a.b.c`; a value that stands where a dict is needed goes into that dict under its own name."""
    head, dot, rest = path.partition(".")
    if not dot:
        if isinstance(into.get(head), _Nested):
            into[head][head] = value
        else:
            into[head] = value
        return
    inner = into.get(head)
    if not isinstance(inner, _Nested):
        inner = into[head] = _Nested() if head not in into else _Nested({head: inner})
    _put(inner, rest, value)


class _Dotted(inspect.Parameter):
    """A parameter whose name is a dotted one, which Python has no syntax for."""

    def __init__(self, name: str) -> None:
        super().__init__("dotted", inspect.Parameter.KEYWORD_ONLY)
        self._name = name


class _Nested(dict[str, Any]):
    """A dict that folding made: a value of the same shape is not mistaken for one."""
