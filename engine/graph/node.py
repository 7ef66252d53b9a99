"""Node declarations: a typed Python function becomes a `Node`, and `/object_info` is derived from its signature.

Everything a node author needs is importable from here. Nothing is registered globally: a package of nodes collects
its `Node` objects in a registry of its own.
"""

import hashlib
import inspect
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from sigmagraph.engine.graph.annotations import (
    INTERNAL,
    MARKS,
    Choice,
    Extra,
    FileIn,
    Hidden,
    Mark,
    Multiline,
    Optional,
    Options,
    Range,
    Services,
    Socket,
    Tooltip,
)
from sigmagraph.engine.graph.dynamic import MATCH_TYPE, TYPES, Autogrow, Dynamic, DynamicCombo, DynamicSlot, MatchType
from sigmagraph.engine.graph.replacements import Replacement
from sigmagraph.engine.graph.results import Blocker, Expansion, Progress, Row, UiResult

__all__ = [
    "Autogrow",
    "Blocker",
    "Choice",
    "DynamicCombo",
    "DynamicSlot",
    "Expansion",
    "Extra",
    "FileIn",
    "Hidden",
    "Input",
    "Lane",
    "MatchType",
    "Multiline",
    "Node",
    "Optional",
    "Options",
    "Output",
    "Progress",
    "Range",
    "Replacement",
    "Services",
    "Socket",
    "Tooltip",
    "UiResult",
    "drain",
    "input_of",
    "node",
]

Lane = Literal["device", "host"]
Group = Literal["required", "optional", "hidden"]
GetNode = Callable[[str], Mapping[str, Any]]
Repeats = Callable[[GetNode], Callable[[str], Collection[str]]]
WIDGET_TYPES: dict[type, str] = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}
MISSING = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Input:
    """One named input. `type` is the wire type (`COMBO` for option lists), or the tag of a hidden input."""

    name: str
    type: str
    group: Group = "required"
    options: Mapping[str, Any] = field(default_factory=dict)
    default: Any = MISSING
    choices: Options | None = None
    file: FileIn | None = None
    range: Range | None = None
    dynamic: Dynamic | None = None
    match: MatchType | None = None

    @property
    def is_checked_combo(self) -> bool:
        """Whether a literal must be one of the options."""
        return self.choices is not None or self.file is not None

    @property
    def is_lazy(self) -> bool:
        """Whether the node itself asks for this input's value, if it needs it."""
        return bool(self.options.get("lazy"))

    def allowed(self, services: Services | None) -> list[Choice] | None:
        """The options of a combo as they are now; None for every other input."""
        if self.file is not None:
            return list(self.file.names(services))
        return self.choices.list(services) if self.choices is not None else None

    def spec(self, services: Services | None) -> list[Any]:
        """The input as `/object_info` shows it: type, and options where there are any."""
        options = dict(self.options)
        if self.dynamic is not None:
            return [TYPES[type(self.dynamic)], {**options, **self.dynamic.wire()}]
        if self.match is not None:
            return [MATCH_TYPE, {**options, **self.match.wire()}]
        allowed = self.allowed(services)
        if allowed is None:
            return [self.type, options] if options else [self.type]
        if self.choices is not None and self.choices.named:
            return ["COMBO", {"multiselect": False, "options": allowed, **options}]
        return [allowed, options] if options else [allowed]


@dataclass(frozen=True, slots=True)
class Output:
    """One output slot; `is_list` outputs carry a Python list whose elements travel one by one."""

    type: str
    name: str | None = None
    tooltip: str | None = None
    is_list: bool = False
    choices: tuple[Choice, ...] | None = None
    match: MatchType | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A node class: what it takes, what it gives, and the function that does it. Calling it calls the function.

    `source` says where a pack's class is written. The fields from `input_is_list` on are what node classes of ComfyUI's
    convention add: `instance` makes the object to call on (`function` and `lazy_status` then take it and give the
    method), `reads` reads what one call returned.
    `refresh` asks the class for its declaration again. `replaces` names classes of old files that this one stands in
    for. `repeats` takes a function that gives any node of a prompt, and returns one that takes this node's id and gives
    those of the nodes before it that it runs copies of: they do not run for themselves.
    """

    class_type: str
    category: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    function: Callable[..., Any]
    output_node: bool = False
    lane: Lane = "host"
    revision: int | str = 1
    display_name: str | None = None
    description: str = ""
    module: str = "nodes"
    source: str = ""
    deprecated: bool = False
    experimental: bool = False
    input_is_list: bool = False
    shares_results: bool = True
    is_trusted: bool = True
    fingerprint: Callable[..., Any] | None = None
    validator: Callable[..., Any] | None = None
    lazy_status: Callable[..., Any] | None = None
    instance: Callable[[], Any] | None = None
    refresh: Callable[[], "Node"] | None = None
    reads: Callable[[Any], Row] | None = None
    replaces: tuple[Replacement, ...] = ()
    repeats: Repeats | None = None

    def __repr__(self) -> str:
        return f"<node {self.class_type}>"

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """The function's result; a generator is run to its end, its progress dropped."""
        function = self.bound(self.function, self.instance() if self.instance is not None else None)
        result = function(*args, **inputs)
        return drain(result) if inspect.isgenerator(result) else result

    def bound(self, function: Any, instance: Any) -> Any:
        """What to call: the function itself, or what it gives for an instance where the class makes some."""
        return function if self.instance is None else function(instance)

    def group(self, group: Group) -> tuple[Input, ...]:
        """The inputs of one group, in wire order."""
        return tuple(declared for declared in self.inputs if declared.group == group)

    @cached_property
    def declared(self) -> dict[str, Input]:
        """The inputs by name, hidden ones too."""
        return {declared.name: declared for declared in self.inputs}

    @cached_property
    def hidden(self) -> tuple[Input, ...]:
        """The inputs the engine fills in."""
        return self.group("hidden")

    @cached_property
    def lazy(self) -> frozenset[str]:
        """The inputs whose values the node itself asks for."""
        return frozenset(declared.name for declared in self.inputs if declared.is_lazy)

    @cached_property
    def raw_links(self) -> frozenset[str]:
        """The inputs that are given the link, and not the value behind it."""
        return frozenset(declared.name for declared in self.inputs if declared.options.get("rawLink"))

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether what a workflow gives decides which inputs there are."""
        return any(declared.dynamic is not None for declared in self.inputs)

    @cached_property
    def has_matched(self) -> bool:
        """Whether types of its inputs have to match each other."""
        return any(declared.match is not None for declared in self.inputs)

    @cached_property
    def names_itself(self) -> bool:
        """Whether the node's id is part of what it computes, so that equal nodes do not share a result."""
        return not self.shares_results or any(wanted.type == "UNIQUE_ID" for wanted in self.hidden)

    @cached_property
    def schema(self) -> str:
        """A digest of the declaration: names, types and order of inputs and outputs (option lists left out)."""
        shape = [[i.name, str(i.type), i.group] for i in self.inputs], [[o.type, o.is_list] for o in self.outputs]
        return hashlib.blake2b(repr(shape).encode(), digest_size=8).hexdigest()

    def object_info(self, services: Services | None = None) -> dict[str, Any]:
        """The declaration in ComfyUI's `/object_info` form; file lists need `services`."""
        shown = [declared for declared in self.inputs if declared.type not in INTERNAL]
        groups: dict[str, dict[str, Any]] = {"required": {}}
        for declared in shown:
            group = groups.setdefault(declared.group, {})
            group[declared.name] = declared.type if declared.group == "hidden" else declared.spec(services)
        types: list[Any] = [_wire_type(output) for output in self.outputs]
        info: dict[str, Any] = {
            "input": groups,
            "input_order": {group: list(inputs) for group, inputs in groups.items()},
            "output": types,
            "output_is_list": [output.is_list for output in self.outputs],
            "output_name": [output.name or output.type for output in self.outputs],
            "name": self.class_type,
            "display_name": self.display_name or self.class_type,
            "description": self.description,
            "python_module": self.module,
            "category": self.category,
            "output_node": self.output_node,
        }
        if any(output.tooltip for output in self.outputs):
            info["output_tooltips"] = [output.tooltip for output in self.outputs]
        if any(output.match for output in self.outputs):
            info["output_matchtypes"] = [output.match.template if output.match else None for output in self.outputs]
        flags = {"deprecated": self.deprecated, "experimental": self.experimental}
        return info | {name: True for name, is_set in flags.items() if is_set}


def _wire_type(output: Output) -> Any:
    if output.match is not None:
        return MATCH_TYPE
    return output.type if output.choices is None else list(output.choices)


def drain(steps: Generator[Any, Any, Any]) -> Any:
    """Run a generator to its end and return its result."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def node(
    class_type: str,
    *,
    category: str,
    outputs: Sequence[str | Output] | None = None,
    output_node: bool = False,
    lane: Lane = "host",
    revision: int = 1,
    display_name: str | None = None,
    deprecated: bool = False,
    experimental: bool = False,
    input_is_list: bool = False,
    fingerprint: Callable[..., Any] | None = None,
    validator: Callable[..., Any] | None = None,
    lazy_status: Callable[..., Any] | None = None,
    replaces: Sequence[Replacement] = (),
) -> Callable[[Callable[..., Any]], Node]:
    """Declare a typed function with keyword-only parameters as a node.

    Outputs are read from the return annotation where not given (`Latent`, `tuple[Model, Clip]`, a generator's
    return type). A parameter is optional on the wire if its default is None or it is marked `Optional()`. With
    `input_is_list` every parameter is a list: the node is called once for all elements, not for each. What
    `fingerprint` says before a run is part of the result's key, for what changes results and is not an input.
    `validator` gets literals as they are and links as None; anything but True refuses, a string with its reason.
    `lazy_status` names the lazy inputs that are needed and have no value yet.
    """

    def declare(function: Callable[..., Any]) -> Node:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        returns = hints.get("return", NoneType)
        slots = outputs if outputs is not None else _returned(returns, function.__qualname__)
        return Node(
            class_type=class_type,
            category=category,
            inputs=tuple(
                _input(parameter, hints.get(parameter.name, MISSING), function.__qualname__) for parameter in parameters
            ),
            outputs=tuple(Output(slot) if isinstance(slot, str) else slot for slot in slots),
            function=function,
            output_node=output_node,
            lane=lane,
            revision=revision,
            display_name=display_name,
            description=inspect.cleandoc(function.__doc__ or ""),
            module=function.__module__,
            deprecated=deprecated,
            experimental=experimental,
            input_is_list=input_is_list,
            fingerprint=fingerprint,
            validator=validator,
            lazy_status=lazy_status,
            replaces=tuple(replaces),
        )

    return declare


def _input(parameter: inspect.Parameter, hint: Any, owner: str) -> Input:
    """One parameter as an Input; a signature that cannot be declared is the author's mistake, a TypeError."""
    place = f"{owner}({parameter.name})"
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(f"{place}: node inputs are keyword-only; put a bare * first")
    return input_of(parameter.name, hint, parameter.default, place)


def input_of(name: str, hint: Any, default: Any = MISSING, place: str = "") -> Input:
    """An input from a name, an annotation and a default, as a parameter of a node has them; for dynamic inputs."""
    base, marks = _unwrap(hint)
    by_kind = {type(mark): mark for mark in marks}
    hidden = cast(Hidden | None, by_kind.get(Hidden))
    if hidden is not None:
        return Input(name, hidden.tag, "hidden")
    options: dict[str, Any] = {} if default is MISSING or default is None else {"default": default}
    for mark in marks:
        if isinstance(mark, Range | FileIn | Multiline | Tooltip | Extra):
            options |= mark.options()
    choices, file = cast(Options | None, by_kind.get(Options)), cast(FileIn | None, by_kind.get(FileIn))
    socket = cast(Socket | None, by_kind.get(Socket))
    dynamic = next((mark for mark in marks if isinstance(mark, Dynamic)), None)
    match = cast(MatchType | None, by_kind.get(MatchType))
    wire = "COMBO" if choices or file else socket.type if socket else WIDGET_TYPES.get(base)
    wire = TYPES[type(dynamic)] if dynamic is not None else match.allowed if match is not None else wire
    if wire is None:
        raise TypeError(f"{place or name}: {base!r} is not a widget type; annotate it with Socket(...)")
    group: Group = "optional" if default is None or Optional in by_kind else "required"
    span = cast(Range | None, by_kind.get(Range))
    return Input(name, wire, group, options, default, choices, file, span, dynamic, match)


def _unwrap(hint: Any) -> tuple[Any, list[Mark | Dynamic | MatchType]]:
    """The bare type and the marks, through `Annotated` and `| None` nested in any order; inner marks first."""
    if get_origin(hint) is Annotated:
        base, *extras = get_args(hint)
        inner, marks = _unwrap(base)
        return inner, marks + [extra for extra in extras if isinstance(extra, (*MARKS, Dynamic, MatchType))]
    if get_origin(hint) in (Union, UnionType):
        members = [member for member in get_args(hint) if member is not NoneType]
        if len(members) == 1:
            return _unwrap(members[0])
    return hint, []


def _returned(hint: Any, owner: str) -> list[str | Output]:
    """Outputs read from a return annotation."""
    base, marks = _unwrap(hint)
    if match := next((mark for mark in marks if isinstance(mark, MatchType)), None):
        return [Output(match.allowed, match=match)]
    if socket := next((mark for mark in marks if isinstance(mark, Socket)), None):
        return [socket.type]
    if base in (NoneType, None, UiResult):
        return []
    if base in WIDGET_TYPES:
        return [WIDGET_TYPES[base]]
    if get_origin(base) is tuple:
        return [wire for member in get_args(base) for wire in _returned(member, owner)]
    if inspect.isclass(origin := get_origin(base)) and issubclass(origin, Generator):
        return _returned(get_args(base)[2], owner)
    raise TypeError(f"{owner}: cannot read outputs from {hint!r}; name them with outputs=(...)")
