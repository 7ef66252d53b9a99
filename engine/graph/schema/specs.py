"""Inputs and outputs as classes of the newer schema write them, and what each means in our declarations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from sigmagraph.engine.graph.annotations import Options
from sigmagraph.engine.graph.dynamic import Autogrow, DynamicCombo, DynamicSlot, MatchType
from sigmagraph.engine.graph.node import MISSING, Input, Output

__all__ = ["WIRE_OPTIONS", "InputSpec", "MatchTemplate", "OutputSpec", "wire_types"]

# what the newer schema calls an option -> its name on the wire
WIRE_OPTIONS: Mapping[str, str] = {
    "display_mode": "display",
    "dynamic_prompts": "dynamicPrompts",
    "force_input": "forceInput",
    "raw_link": "rawLink",
    "widget_type": "widgetType",
}


@dataclass(frozen=True)
class InputSpec:
    """One input: its wire type, and options by the newer schema's names."""

    id: str
    io_type: str
    optional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    dynamic: Any = None
    template: "MatchTemplate | None" = None

    def declared(self) -> Input:
        """The input in our declarations."""
        wire, choices = self._wire(), self.options.get("options") if self.io_type == "COMBO" else None
        listed = None if choices is None else Options(_choices(choices), named=True)
        default = wire.get("default", MISSING)
        group = "optional" if self.optional else "required"
        made = Input(self.id, self.io_type, "required", wire, default, listed, dynamic=self.dynamic)
        made = replace(made, group="optional") if group == "optional" else made
        return made if self.template is None else replace(made, match=self.template.match, type=self.template.allowed)

    def _wire(self) -> dict[str, Any]:
        wire = {
            WIRE_OPTIONS.get(name, name): _plain(value) for name, value in self.options.items() if value is not None
        }
        extra = wire.pop("extra_dict", None)
        wire.pop("options", None)
        return {**wire, **(extra if isinstance(extra, Mapping) else {})}


@dataclass(frozen=True)
class OutputSpec:
    """One output."""

    io_type: str
    id: str | None = None
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False
    options: Any = None
    template: "MatchTemplate | None" = None

    def declared(self) -> Output:
        """The output in our declarations."""
        made = Output(self.io_type, self.display_name or self.id, self.tooltip, self.is_output_list)
        return made if self.template is None else replace(made, match=self.template.match, type=self.template.allowed)


@dataclass(frozen=True)
class MatchTemplate:
    """`MatchType.Template`: what inputs and outputs of one type have in common."""

    template_id: str
    allowed_types: Any = None

    @property
    def allowed(self) -> str:
        """The types there may be, as a comma list."""
        return wire_types(self.allowed_types)

    @property
    def match(self) -> MatchType:
        """The same in our declarations."""
        return MatchType(self.template_id, self.allowed)


def wire_types(given: Any) -> str:
    """One type or several, classes or names, as the wire has them; nothing means any."""
    listed = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    names = [str(getattr(kind, "io_type", kind)) for kind in listed if kind is not None]
    return ",".join(names) or "*"


def combo(own: str, options: Sequence[Any], rest: Mapping[str, Any]) -> InputSpec:
    """`DynamicCombo.Input`."""
    table = {str(_plain(option.key)): [inner.declared() for inner in option.inputs] for option in options}
    return InputSpec(own, "COMFY_DYNAMICCOMBO_V3", *_parted(rest), DynamicCombo(table))


def autogrow(own: str, template: Any, rest: Mapping[str, Any]) -> InputSpec:
    """`Autogrow.Input`; the template says how its inputs are named."""
    inner = template.input.declared()
    if template.names is not None:
        grown = Autogrow(inner, tuple(template.names), template.min)
    else:
        grown = Autogrow.numbered(inner, template.prefix, template.min, template.max)
    return InputSpec(own, "COMFY_AUTOGROW_V3", *_parted(rest), grown)


def slot(inner: InputSpec, inputs: Sequence[InputSpec], rest: Mapping[str, Any]) -> InputSpec:
    """`DynamicSlot.Input`."""
    brought = DynamicSlot(inner.declared(), [given.declared() for given in inputs])
    return InputSpec(inner.id, "COMFY_DYNAMICSLOT_V3", *_parted(rest, inner.optional), brought)


def _parted(rest: Mapping[str, Any], usually: bool = False) -> tuple[bool, dict[str, Any]]:
    """Whether the input is optional, and the other options."""
    kept = dict(rest)
    return bool(kept.pop("optional", usually)), kept


def _choices(given: Any) -> list[Any]:
    """A list of options, or the values of an enumeration."""
    if isinstance(given, type) and issubclass(given, Enum):
        return [choice.value for choice in given]
    return [_plain(choice) for choice in given]


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
