"""Node classes written to ComfyUI's convention (INPUT_TYPES, RETURN_TYPES, FUNCTION ...) become `Node` objects.

Values of our own types are translated at the boundary by a table that the node library gives; nothing here knows
what a latent is. Inputs are handed out and outputs taken in as copies, so a class that edits them in place harms
nobody but itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from sigmagraph.engine.graph.comfy.defensive_copy import copied, difference
from sigmagraph.engine.graph.node import Group, Input, Node, Options, Output
from sigmagraph.engine.graph.results import Blocker, Expansion, Row
from sigmagraph.engine.graph.source import source_of


@dataclass(frozen=True, slots=True)
class Translation:
    """How one wire type crosses: `out` gives what classes of the convention expect, `back` takes it in again."""

    out: Callable[[Any], Any]
    back: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Border:
    """What every class of a pack is given: translations by wire type, and whether edits in place are an error.

    `watches` compares each input with the copy the node had and fails the node that changed one (a debug mode).
    """

    translations: Mapping[str, Translation] = field(default_factory=dict)
    watches: bool = False


class EditedInPlace(TypeError):
    """A node changed a value it was given; only reported while a border watches."""


def from_class(
    cls: type,
    class_type: str,
    *,
    display_name: str | None = None,
    module: str = "custom_nodes",
    revision: int | str = 1,
    border: Border = Border(),  # frozen
) -> Node:
    """The class as a node. Its declaration is asked once now, and again by `refresh` for each validation."""
    inputs, outputs = _inputs(cls), _outputs(cls)
    method = getattr(cls, "FUNCTION", None)
    if not isinstance(method, str) or not callable(getattr(cls, method, None)):
        raise TypeError(f"{class_type}: FUNCTION is {method!r}; expected the name of a method")
    by_name = {declared.name: declared for declared in inputs}
    is_list = bool(getattr(cls, "INPUT_IS_LIST", False))

    def function(instance: Any) -> Callable[..., Any]:
        return handing_out(getattr(instance, method), by_name, border, is_list)

    return Node(
        class_type=class_type,
        category=str(getattr(cls, "CATEGORY", "sd")),
        inputs=inputs,
        outputs=outputs,
        function=function,
        output_node=bool(getattr(cls, "OUTPUT_NODE", False)),
        lane="device",
        revision=revision,
        display_name=display_name,
        description=str(getattr(cls, "DESCRIPTION", "")),
        module=module,
        source=source_of(cls, module),
        deprecated=bool(getattr(cls, "DEPRECATED", False)),
        experimental=bool(getattr(cls, "EXPERIMENTAL", False)),
        input_is_list=is_list,
        shares_results=not getattr(cls, "NOT_IDEMPOTENT", False),
        is_trusted=False,
        fingerprint=getattr(cls, "IS_CHANGED", None),
        validator=getattr(cls, "VALIDATE_INPUTS", None),
        lazy_status=attrgetter("check_lazy_status") if hasattr(cls, "check_lazy_status") else None,
        instance=cls,
        refresh=lambda: from_class(
            cls, class_type, display_name=display_name, module=module, revision=revision, border=border
        ),
        reads=lambda returned: read_result(returned, outputs, border),
    )


def _inputs(cls: Any) -> tuple[Input, ...]:
    declared = cls.INPUT_TYPES()
    if not isinstance(declared, Mapping):
        raise TypeError(f"{cls.__name__}.INPUT_TYPES returned {type(declared).__name__}; expected a dict")
    groups: tuple[Group, ...] = ("required", "optional")
    visible = [_input(name, spec, group) for group in groups for name, spec in (declared.get(group) or {}).items()]
    hidden = [_hidden(name, spec) for name, spec in (declared.get("hidden") or {}).items()]
    return (*visible, *hidden)


def _input(name: str, spec: Any, group: Group) -> Input:
    if not isinstance(name, str):
        raise TypeError(f"an input's name is {name!r}; expected a string")
    kind, options = (
        (spec, {}) if isinstance(spec, str) else (spec[0], dict(spec[1]) if len(spec) > 1 and spec[1] else {})
    )
    if isinstance(kind, list | tuple):
        return Input(name, "COMBO", group, options, choices=Options(list(kind)))
    return Input(name, _hashable(kind), group, options)


def _hashable(kind: Any) -> Any:
    """A wire type that can be looked up in a set: packs' wildcards define `__eq__` and thereby lose `str`'s hash."""
    if not isinstance(kind, str) or type(kind).__hash__ is not None:
        return kind
    cls = type(kind)
    return str.__new__(type(cls.__name__, (cls,), {"__hash__": str.__hash__}), kind)


def _hidden(name: str, spec: Any) -> Input:
    tag = spec[0] if isinstance(spec, list | tuple) and spec else spec
    return Input(name, _hashable(tag) if isinstance(tag, str) else str(getattr(tag, "value", tag)), "hidden")


def _outputs(cls: Any) -> tuple[Output, ...]:
    types = tuple(getattr(cls, "RETURN_TYPES", ()))
    names = tuple(getattr(cls, "RETURN_NAMES", ()) or ())
    tips = tuple(getattr(cls, "OUTPUT_TOOLTIPS", ()) or ())
    lists = tuple(getattr(cls, "OUTPUT_IS_LIST", ()) or ())

    def at(values: Sequence[Any], slot: int, default: Any) -> Any:
        return values[slot] if slot < len(values) else default

    return tuple(
        Output(
            "COMBO" if isinstance(kind, list) else _hashable(kind),
            at(names, slot, None),
            at(tips, slot, None),
            bool(at(lists, slot, False)),
            tuple(kind) if isinstance(kind, list) else None,
        )
        for slot, kind in enumerate(types)
    )


def handing_out(
    method: Callable[..., Any], declared: Mapping[str, Input], border: Border, is_list: bool
) -> Callable[..., Any]:
    """The method, given translated copies of its linked values."""

    def outward(name: str, value: Any) -> Any:
        wire = str(declared[name].type) if name in declared else "*"
        if name in declared and declared[name].group == "hidden":
            return value
        crossing = border.translations.get(wire)
        if is_list and isinstance(value, list):
            return [copied(crossing.out(item) if crossing else item) for item in value]
        return copied(crossing.out(value) if crossing and value is not None else value)

    def call(**inputs: Any) -> Any:
        handed = {name: outward(name, value) for name, value in inputs.items()}
        if not border.watches:
            return method(**handed)
        before = {name: copied(value) for name, value in handed.items()}
        returned = method(**handed)
        for name, value in before.items():
            if changed := difference(value, handed[name]):
                raise EditedInPlace(f"the node changed its input {name!r} in place ({changed}); copy it first")
        return returned

    return call


def read_result(returned: Any, outputs: Sequence[Output], border: Border) -> Row:
    """What one call of the convention returned: a sequence, `{"ui", "result", "expand"}`, or a blocker."""
    if isinstance(returned, Blocker):
        return Row((returned,) * len(outputs))
    if isinstance(returned, Mapping):
        ui = returned.get("ui")
        result = returned.get("result", ())
        if ui is not None and not isinstance(ui, Mapping):
            raise TypeError(f"the node returned {type(ui).__name__} as ui; expected an object of lists")
        ui = copied(ui)
        if "expand" in returned:
            return Row(ui=ui, expansion=_expansion(returned["expand"], result or ()))
        if isinstance(result, Blocker):
            result = (result,) * len(outputs)
        return Row(_inward(result, outputs, border), ui)
    return Row(_inward(returned, outputs, border))


def _expansion(graph: Any, result: Any) -> Expansion:
    if not isinstance(graph, Mapping) or not isinstance(result, Sequence):
        found = f"{type(graph).__name__} with {type(result).__name__}"
        raise TypeError(f"the node expanded into {found}; expected an object of nodes with a sequence of results")
    return Expansion(graph, result)


def _inward(result: Any, outputs: Sequence[Output], border: Border) -> tuple[Any, ...]:
    """Copies: an object may go on writing into a list or tensor that it returned, in its next call say."""
    try:
        values = tuple(result)
    except TypeError as error:
        found = type(result).__name__
        raise TypeError(f"the node returned {found}; expected a tuple with one value per output") from error
    return tuple(
        _back(value, outputs[slot], border) if slot < len(outputs) else value
        for slot, value in enumerate(map(copied, values))
    )


def _back(value: Any, output: Output, border: Border) -> Any:
    crossing = border.translations.get(str(output.type))
    if crossing is None or value is None or isinstance(value, Blocker):
        return value
    if output.is_list and isinstance(value, list | tuple):
        return [crossing.back(item) for item in value]
    return crossing.back(value)
