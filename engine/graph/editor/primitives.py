"""Primitive nodes: they carry no link; their value is written into the widgets they are drawn to."""

from collections.abc import Callable, Mapping
from typing import Any

from sigmagraph.engine.graph.editor.records import EditorNode
from sigmagraph.engine.graph.editor.scope import Scope, every_scope
from sigmagraph.engine.graph.editor.widgets import Declaration, declaration_of, declared_inputs

Target = tuple[str, str]
REWRITES = "Run widget replace on values"


def primitive_values(
    root: Scope, declarations: Mapping[str, Declaration], rewrite: Callable[[str], str] = str
) -> dict[Target, Any]:
    """(execution id, widget) -> value. Promoted inputs of instances are set on the spot.

    Muted and bypassed primitives act too; through a reroute none does. `rewrite` is for texts of those that ask for it.
    """
    written: dict[Target, Any] = {}
    for scope in every_scope(root):
        for node in scope.drawing.nodes.values():
            values = node.values
            if node.type == "PrimitiveNode" and isinstance(values, list) and values:
                value = scope.overrides.get((node.id, "value"), values[0])
                if node.properties.get(REWRITES) is True and isinstance(value, str):
                    value = rewrite(value)
                _apply(scope, node, value, written, declarations)
    return written


def _apply(
    scope: Scope,
    primitive: EditorNode,
    value: Any,
    written: dict[Target, Any],
    declarations: Mapping[str, Declaration],
) -> None:
    targets: list[tuple[EditorNode, str]] = []
    for wire in scope.drawing.leaving.get((primitive.id, 0), ()):
        node = scope.drawing.nodes.get(wire.target)
        if node is None:
            continue
        named = next((slot.name for slot in node.inputs if slot.link == wire.id), None)
        if named is None and wire.target_slot < len(node.inputs):
            named = node.inputs[wire.target_slot].name
        if named is not None:
            targets.append((node, named))
    value = _clamped(value, [_bounds(node, name, declarations.get(node.type)) for node, name in targets])
    for node, name in targets:
        child = scope.children.get(node.id)
        if child is not None:
            child.promoted[name] = value
        else:
            written[scope.id_of(node), name] = value


def _bounds(node: EditorNode, name: str, declaration: Declaration | None) -> Mapping[str, Any]:
    inputs = declared_inputs(declaration_of(node, declaration)) if declaration is not None else ()
    return next((options for known, _, options, _ in inputs if known == name), {})


def _clamped(value: Any, bounds: list[Mapping[str, Any]]) -> Any:
    """Within the narrowest range of all targets; only numbers have one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    lows = [bound["min"] for bound in bounds if isinstance(bound.get("min"), int | float)]
    highs = [bound["max"] for bound in bounds if isinstance(bound.get("max"), int | float)]
    return min([max([value, *lows]), *highs])
