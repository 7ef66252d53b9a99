"""The widgets of a node class, and what a file's `widgets_values` means for them. Works on declarations as data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.graph.editor.dynamic_widgets import is_dynamic, laid_out
from sigmagraph.engine.graph.editor.records import EditorNode

Declaration = Mapping[str, Any]
PLAIN_TYPES = frozenset(("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO"))
RARE_TYPES = frozenset(
    ("MARKDOWN", "COLOR", "CURVE", "BOUNDING_BOX", "TEXTAREA", "SELECTBUTTON", "MULTISELECT", "TREESELECT", "CHART")
) | {"BOUNDING_BOXES", "PAINTER"}
MEDIA_TYPES = frozenset(("FILEUPLOAD", "IMAGEUPLOAD", "IMAGECOMPARE", "GALLERIA", "AUDIO_RECORD", "WEBCAM"))
WIDGET_TYPES = PLAIN_TYPES | RARE_TYPES | MEDIA_TYPES
CONTROLS = frozenset(("fixed", "increment", "decrement", "randomize", "increment-wrap"))
EMPTY: Mapping[str, Any] = {"INT": 0, "FLOAT": 0, "BOOLEAN": False, "STRING": ""}
SEEDS = ("seed", "noise_seed")
UPLOADS = {"image_upload": "image", "video_upload": "image", "animated_image_upload": "image", "audio_upload": ""}


@dataclass(frozen=True, slots=True)
class Widget:
    """One widget: whether its value goes into the prompt, and whether it is a control that old files may lack."""

    name: str
    type: str
    default: Any = None
    in_prompt: bool = True
    is_control: bool = False
    options: Mapping[str, Any] | None = None


def declared_inputs(declaration: Declaration) -> Iterator[tuple[str, Any, Mapping[str, Any], bool]]:
    """Name, type, options and whether required, in the order of the widgets."""
    groups = declaration.get("input") or {}
    order = declaration.get("input_order") or {}
    for group in ("required", "optional"):
        specs = groups.get(group) or {}
        for name in order.get(group) or specs:
            spec = specs.get(name)
            if isinstance(spec, list | tuple) and spec:
                options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
                yield name, spec[0], options, group == "required"


def widget_type(kind: Any, options: Mapping[str, Any]) -> str | None:
    """The type of the widget an input makes, or None for a socket."""
    if options.get("forceInput"):
        return None
    if asked := options.get("widgetType"):
        return str(asked)  # a widget of the page's, or one that the pack's own script makes
    shown = "COMBO" if isinstance(kind, list) else kind
    return str(shown) if shown in WIDGET_TYPES else None


def is_widget(node: EditorNode, name: str, declaration: Declaration | None) -> bool:
    """Whether an input of a node is a converted widget."""
    if any(slot.name == name and slot.widget is not None for slot in node.inputs):
        return True
    inputs = declared_inputs(declaration) if declaration is not None else ()
    return any(known == name and widget_type(kind, options) is not None for known, kind, options, _ in inputs)


def widgets_of(declaration: Declaration) -> list[Widget]:
    """All widgets that have a place in `widgets_values`, in order."""
    widgets: list[Widget] = []
    buttons: list[Widget] = []
    for name, kind, options, is_required in declared_inputs(declaration):
        shown = widget_type(kind, options)
        if shown is None:
            continue
        widgets.append(Widget(name, shown, _default(kind, shown, options), options=options))
        widgets += _companions(name, shown, options)
        if shown == "COMBO" and is_required:
            uploads = [value for option, value in UPLOADS.items() if options.get(option)]
            buttons += [Widget("upload", "BUTTON", value, in_prompt=False) for value in uploads[:1]]
    return widgets + buttons


def _companions(name: str, shown: str, options: Mapping[str, Any]) -> Iterator[Widget]:
    """The widgets the editor puts behind a widget."""
    control = options.get("control_after_generate")
    if shown == "INT" and (control or (control is None and name in SEEDS)):
        label = control if isinstance(control, str) else "control_after_generate"
        yield Widget(label, "COMBO", "randomize", in_prompt=False, is_control=True)
    if shown == "COMBO" and control:
        yield Widget("control_after_generate", "COMBO", "fixed", in_prompt=False, is_control=True)
        yield Widget("control_filter_list", "STRING", "", in_prompt=False, is_control=True)
    if shown == "COMBO" and isinstance(remote := options.get("remote"), dict):
        yield Widget("Auto-refresh after generation", "BOOLEAN", False, in_prompt=False)
        if remote.get("refresh_button"):
            yield Widget("refresh", "BUTTON")


def _default(kind: Any, shown: str, options: Mapping[str, Any]) -> Any:
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options") or []
    return choices[0] if shown == "COMBO" and choices else EMPTY.get(shown)


@dataclass(frozen=True, slots=True)
class Places:
    """What a class's `widgets_values` hold: its widgets, and for old files which places were forced to be sockets."""

    widgets: list[Widget]
    is_forced: list[bool]


def places_of(declaration: Declaration) -> Places:
    """Read once for a class; a file has few classes and many nodes."""
    is_forced: list[bool] = []
    for name, kind, options, _ in declared_inputs(declaration):
        if widget_type(kind, {**options, "forceInput": False}) is None:
            continue
        has_control = options.get("control_after_generate") or name in SEEDS
        is_forced += [bool(options.get("forceInput"))] * (2 if has_control else 1)
    return Places(widgets_of(declaration), is_forced)


def declaration_of(node: EditorNode, declaration: Declaration) -> Declaration:
    """The class's declaration as this node has it: with the inputs its choices bring."""
    if not is_dynamic(declaration):
        return declaration
    keys: dict[str, str] = {}
    while True:
        laid = laid_out(declaration, lambda name, listed: keys.get(name, ""), lambda name: _is_linked(node, name))
        values = stored_values(node, places_of(laid))
        fresh = {
            name: str(values[name])
            for name, kind, _, _ in declared_inputs(laid)
            if isinstance(kind, list) and name in values and keys.get(name) != str(values[name])
        }
        if not fresh.keys() - keys.keys():
            return laid
        first = next(name for name in fresh if name not in keys)  # what stands behind it moves when it is known
        keys[first] = fresh[first]


def _is_linked(node: EditorNode, name: str) -> bool:
    return any(slot.name == name and slot.link is not None for slot in node.inputs)


def stored_values(node: EditorNode, places: Places) -> dict[str, Any]:
    """Widget name -> value for every widget of the node, controls included; defaults where the file has none."""
    widgets = places.widgets
    values = {widget.name: widget.default for widget in widgets}
    if isinstance(node.values, dict):
        return values | {name: value for name, value in node.values.items() if name in values}
    listed = list(node.values) if isinstance(node.values, list) else []
    if node.named_values is not None and len(node.named_values) == len(listed):
        return values | {name: value for name, value in node.named_values.items() if name in values}
    listed = _without_placeholders(listed, places)
    kept = _without_lost_controls(widgets, listed)
    return values | _repaired(node, {widget.name: value for widget, value in zip(kept, listed, strict=False)})


def assumption(node: EditorNode, places: Places) -> str | None:
    """What was assumed where a list of values does not fit the widgets of today, or None where it fits.

    Trailing buttons and controls may be left out of a list without any doubt about the others.
    """
    if not isinstance(node.values, list) or (node.named_values and len(node.named_values) == len(node.values)):
        return None
    widgets, listed = places.widgets, _without_placeholders(list(node.values), places)
    kept = _without_lost_controls(widgets, listed)
    unset = [widget.name for widget in kept[len(listed) :] if widget.in_prompt]
    if kept is not widgets:
        lost = ", ".join(widget.name for widget in widgets if widget.is_control)
        return f"the file has {len(listed)} values for {len(widgets)} widgets; assumed that it lacks {lost}"
    if any(value not in (None, "") for value in listed[len(kept) :]):  # a page's players and viewers leave empty ones
        surplus = ", ".join(repr(value)[:40] for value in listed[len(kept) :][:4])
        return f"the file has {len(listed)} values for {len(kept)} widgets; assumed that the last are old: {surplus}"
    if unset and listed:
        return f"the file has {len(listed)} values for {len(kept)} widgets; assumed defaults for {', '.join(unset)}"
    return None


def _without_placeholders(listed: list[Any], places: Places) -> list[Any]:
    """Old files also stored a value for inputs that were forced to be sockets: drop those, if the count says so."""
    is_forced = places.is_forced
    if len(is_forced) != len(listed) or not any(is_forced):
        return listed
    return [value for value, forced in zip(listed, is_forced, strict=True) if not forced]


def _without_lost_controls(widgets: list[Widget], listed: list[Any]) -> list[Widget]:
    """Files written by hand or by old programs lack the controls: then the values belong to the other widgets."""
    controls = [at for at, widget in enumerate(widgets) if widget.is_control]
    plain = [widget for widget in widgets if not widget.is_control]
    if not controls or len(listed) != len(plain) or (controls[0] < len(listed) and _is_control(listed[controls[0]])):
        return widgets
    return plain


def _is_control(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value in CONTROLS)


def _repaired(node: EditorNode, values: dict[str, Any]) -> dict[str, Any]:
    """Spellings of very old files."""
    sampler = values.get("sampler_name")
    if node.type in ("KSampler", "KSamplerAdvanced") and isinstance(sampler, str):
        values["sampler_name"] = sampler.removeprefix("sample_")
    return values
