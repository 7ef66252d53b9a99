"""A class of the newer schema as a `Node`. Its hooks are class methods; each call sees a class of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sigmagraph.engine.graph.comfy.comfy_class import Border, handing_out, read_result
from sigmagraph.engine.graph.node import Input, Node, Output
from sigmagraph.engine.graph.results import Blocker, Row
from sigmagraph.engine.graph.schema.io import ComfyNode, Hidden, HiddenHolder, NodeOutput, Schema
from sigmagraph.engine.graph.source import source_of

__all__ = ["from_schema", "is_schema_class"]

HIDDEN_OF_OUTPUTS = (Hidden.prompt, Hidden.extra_pnginfo)  # an output node is told what it is part of, asked for or not


def is_schema_class(cls: Any) -> bool:
    """Whether a class declares itself by the newer schema."""
    return isinstance(cls, type) and issubclass(cls, ComfyNode)


def from_schema(
    cls: type[ComfyNode],
    class_type: str | None = None,
    *,
    module: str = "custom_nodes",
    revision: int | str = 1,
    border: Border | None = None,
) -> Node:
    """The class as a node; its schema is asked once now, and again by `refresh` for each validation."""
    crossing = border or Border()
    schema = cls.define_schema()
    if not isinstance(schema, Schema):
        raise TypeError(f"{cls.__name__}.define_schema returned {type(schema).__name__}; expected io.Schema")
    inputs = [given.declared() for given in schema.inputs]
    outputs = tuple(output.declared() for output in schema.outputs)
    hidden = _hidden(schema, {declared.name for declared in inputs})
    tell = _Tells(cls, {wanted.name: tag for tag, wanted in hidden.items()})
    return Node(
        class_type=class_type or schema.node_id,
        category=schema.category,
        inputs=(*inputs, *hidden.values()),
        outputs=outputs,
        function=handing_out(
            tell.execute, {declared.name: declared for declared in inputs}, crossing, schema.is_input_list
        ),
        output_node=schema.is_output_node,
        lane="device",
        revision=revision,
        display_name=schema.display_name,
        description=schema.description,
        module=module,
        source=source_of(cls, module),
        deprecated=schema.is_deprecated,
        experimental=schema.is_experimental,
        input_is_list=schema.is_input_list,
        shares_results=not schema.not_idempotent,
        is_trusted=False,
        fingerprint=getattr(cls, "fingerprint_inputs", None),
        validator=getattr(cls, "validate_inputs", None),
        lazy_status=tell.hook("check_lazy_status") if hasattr(cls, "check_lazy_status") else None,
        refresh=lambda: from_schema(cls, class_type, module=module, revision=revision, border=border),
        reads=lambda returned: _read(returned, outputs, crossing),
    )


def _hidden(schema: Schema, taken: set[str]) -> Mapping[Hidden, Input]:
    """The hidden inputs; one whose name a visible input has takes another."""
    asked = [*schema.hidden, *(HIDDEN_OF_OUTPUTS if schema.is_output_node else ())]
    names = {tag: f"hidden_{tag.name}" if tag.name in taken else tag.name for tag in map(Hidden, asked)}
    return {tag: Input(name, tag.value, "hidden") for tag, name in names.items()}


class _Tells:
    """Calls class methods on a class of the call's own, whose `hidden` holds what the engine tells."""

    def __init__(self, cls: type[ComfyNode], names: Mapping[str, Hidden]) -> None:
        self.cls, self.names = cls, names

    def execute(self, **given: Any) -> Any:
        """The node's work."""
        return self.hook("execute")(**given)

    def hook(self, name: str) -> Callable[..., Any]:
        """A class method, to be called with the hidden values among the others."""

        def call(**given: Any) -> Any:
            told = {tag.name: given.pop(own) for own, tag in self.names.items() if own in given}
            seen = type(self.cls.__name__, (self.cls,), {"hidden": HiddenHolder(told)})
            return getattr(seen, name)(**given)

        return call


def _read(returned: Any, outputs: Sequence[Output], border: Border) -> Row:
    """What `execute` returned, in the form the older convention has for it."""
    if not isinstance(returned, NodeOutput):
        return read_result(() if returned is None else returned, outputs, border)
    if returned.block_execution is not None:
        return read_result(Blocker(returned.block_execution), outputs, border)
    ui = returned.ui.as_dict() if hasattr(returned.ui, "as_dict") else returned.ui
    told = {"result": returned.args} | ({"ui": ui} if ui is not None else {})
    return read_result(told | ({"expand": returned.expand} if returned.expand is not None else {}), outputs, border)
