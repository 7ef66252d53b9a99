"""What an editor's file means, rule by rule, as far as test_editor.py has not said it; README.md has the list."""

from typing import Any

import pytest

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor import convert
from sigmagraph.engine.graph.literals import unwrap
from sigmagraph.engine.graph.reading.document import parse_workflow
from tests.graph.test_editor import NODES, item, made, picture, preview

MORE: dict[str, Any] = {
    **NODES,
    "ControlNetLoader": {"input": {"required": {"name": [["a"], {}]}}, "output": ["CONTROL_NET"]},
    "KSampler": {
        "input": {"required": {"seed": ["INT", {}], "sampler_name": [["euler"], {}], "steps": ["INT", {}]}},
        "output": ["LATENT"],
    },
    "Listed": {
        "input": {
            "required": {
                "file": [["a", "b"], {"control_after_generate": True}],
                "online": ["COMBO", {"remote": {"route": "/x", "refresh_button": True}, "options": []}],
                "last": ["INT", {}],
            }
        },
        "output": [],
    },
    "LoadAudio": {"input": {"required": {"audio": [["a.mp3"], {"audio_upload": True}]}}, "output": ["AUDIO"]},
    "Plain": {
        "input": {
            "required": {"n": ["INT"], "x": ["FLOAT"], "b": ["BOOLEAN"], "s": ["STRING"], "c": [["one", "two"]]},
            "hidden": {"unique_id": "UNIQUE_ID"},
        },
        "output": [],
    },
    "Special": {"input": {"required": {"curve": ["CURVE", {"widgetType": "STRING"}], "n": ["INT", {}]}}, "output": []},
    "Ordered": {
        "input": {"required": {"b": ["INT", {}], "a": ["INT", {}]}},
        "input_order": {"required": ["a", "b"]},
        "output": [],
    },
}


def inputs(kind: str, values: Any = None, **more: Any) -> dict[str, Any]:
    prompt, _ = convert({"nodes": [item(1, kind, values=values, **more)], "links": []}, MORE)
    found: dict[str, Any] = prompt["1"]["inputs"]
    return found


# -- A2, A3: the file, and which nodes it stands for ------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 1, 3])
def test_modes_other_than_muted_and_bypassed_are_normal(mode: int) -> None:
    assert "1" in made([item(1, "EmptyImage", values=[1, 1, 1, 1], mode=mode)])


def test_ids_may_be_texts_and_table_entries_null() -> None:
    nodes = [{**picture(), "id": "a"}, {**preview(2, 1), "id": "b"}]
    links = [None, [1, "a", "0", "b", "0", "IMAGE"]]
    assert made(nodes, links)["b"] == {"images": ["a", 0]}


@pytest.mark.parametrize(
    "dots",
    [
        {
            "extra": {
                "reroutes": [{"id": 1, "pos": [0, 0], "linkIds": [1]}],
                "linkExtensions": [{"id": 1, "parentId": 1}],
            }
        },
        {
            "reroutes": [{"id": 1, "parentId": 2, "pos": [0, 0], "linkIds": [1]}],
            "floatingLinks": [{"id": 9}],
            "version": 1,
        },
        {"groups": [{"title": "all", "bounding": [0, 0, 1, 1]}], "models": [], "config": {}},
    ],
)
def test_dots_on_links_loose_ends_and_frames_mean_nothing(dots: dict[str, Any]) -> None:
    nodes, links = [picture(), preview(2, 1)], [[1, 1, 0, 2, 0, "IMAGE"]]
    prompt, warnings = convert({"nodes": nodes, "links": links, **dots}, NODES)
    assert prompt["2"]["inputs"] == {"images": ["1", 0]}
    assert warnings == []


@pytest.mark.parametrize(("old", "new"), [("T2IAdapterLoader", "ControlNetLoader")])
def test_old_class_names_are_replaced(old: str, new: str) -> None:
    prompt, warnings = convert({"nodes": [item(1, old, values=["a"])], "links": []}, MORE)
    assert (prompt["1"]["class_type"], prompt["1"]["inputs"], warnings) == (new, {"name": "a"}, [])


def test_very_old_sampler_names_lose_their_prefix_and_controls_may_be_truth_values() -> None:
    assert inputs("KSampler", [5, True, "sample_euler", 9]) == {"seed": 5, "sampler_name": "euler", "steps": 9}
    assert inputs("KSampler", [5, False, "euler", 9])["steps"] == 9


def test_all_unknown_classes_are_named_at_once() -> None:
    nodes = [item(1, "One"), item(2, "Two"), item(3, "Three")]
    _, warnings = convert({"nodes": nodes, "links": []}, NODES)
    assert [warning.split("'")[1] for warning in warnings] == ["One", "Two", "Three"]


# -- A4: the widgets and their values ---------------------------------------------------------------------------------


def test_lists_with_controls_and_remote_lists_have_their_companions() -> None:
    values = ["b", "increment-wrap", "filter", "chosen", False, None, 7]
    assert inputs("Listed", values) == {"file": "b", "online": "chosen", "refresh": None, "last": 7}


def test_the_audio_button_and_player_are_not_sent() -> None:
    assert inputs("LoadAudio", ["b.mp3", None, ""]) == {"audio": "b.mp3"}


def test_without_a_stored_value_or_a_declared_default_a_type_has_its_own() -> None:
    assert inputs("Plain") == {"n": 0, "x": 0, "b": False, "s": "", "c": "one"}


def test_null_is_a_value() -> None:
    assert inputs("Plain", [None, 1.5, None, "t", "two"]) == {"n": None, "x": 1.5, "b": None, "s": "t", "c": "two"}


def test_an_option_may_make_a_widget_of_any_type() -> None:
    assert inputs("Special", ["points", 3]) == {"curve": "points", "n": 3}


def test_the_declared_order_of_inputs_is_the_order_of_values() -> None:
    assert inputs("Ordered", [1, 2]) == {"a": 1, "b": 2}


def test_named_values_that_do_not_agree_in_length_are_passed_over() -> None:
    assert inputs("Ordered", [1, 2], widgets_values_named={"a": 9}) == {"a": 1, "b": 2}


def test_nothing_is_clamped_and_no_option_checked() -> None:
    assert inputs("Plain", [10**12, -1e9, True, "", "no such"])["c"] == "no such"


# -- A5: what is written ----------------------------------------------------------------------------------------------


def test_wrapped_lists_and_curves_are_unwrapped_where_they_are_read() -> None:
    assert unwrap({"__value__": [1, 2]}) == [1, 2]
    assert unwrap({"__type__": "CURVE", "__value__": [[0, 1]]}) == [[0, 1]]


def test_a_primitive_that_asks_for_it_has_its_text_rewritten() -> None:
    primitive = item(
        3,
        "PrimitiveNode",
        values=["%Canvas.width%/x", "fixed"],
        outputs=[("STRING", "STRING", [1])],
        properties={"Run widget replace on values": True},
    )
    text = item(4, "Text", values=["own"], inputs=[("text", "STRING", 1, "text")])
    canvas = {**picture(), "title": "Canvas"}
    links = [[1, 3, 0, 4, 0, "STRING"]]
    assert made([canvas, primitive, text], links)["4"] == {"text": "64/x"}
    primitive["properties"] = {}
    assert made([canvas, primitive, text], links)["4"] == {"text": "%Canvas.width%/x"}


# -- A6: links --------------------------------------------------------------------------------------------------------


def test_slots_are_matched_by_name_and_the_tables_slot_is_not_believed() -> None:
    blend = item(3, "Blend", inputs=[("mask", "MASK", None), ("two", "IMAGE", 2), ("one", "IMAGE", 1)])
    loads = [item(at, "LoadImage", values=["a.png"], outputs=[("IMAGE", "IMAGE", [at])]) for at in (1, 2)]
    assert made([*loads, blend], [[1, 1, 0, 3, 0, "IMAGE"], [2, 2, 0, 3, 9, "IMAGE"]])["3"] == {
        "one": ["1", 0],
        "two": ["2", 0],
    }


@pytest.mark.parametrize(
    ("given", "wanted", "passes"),
    [("image", "IMAGE", True), ("IMAGE,MASK", "MASK,LATENT", True), ("*", "IMAGE", True), ("LATENT", "IMAGE", False)],
)
def test_bypassed_types_match_without_case_with_wildcards_and_by_members(given: str, wanted: str, passes: bool) -> None:
    bypassed = item(2, "Odd", mode=4, inputs=[("x", given, 1)], outputs=[("y", given, [2])])
    target = item(3, "PreviewImage", inputs=[("images", wanted, 2)])
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]]
    assert made([picture(), bypassed, target], links)["3"] == ({"images": ["1", 0]} if passes else {})


def test_a_bypassed_node_without_inputs_hands_on_nothing_and_a_converted_widget_keeps_its_value() -> None:
    bypassed = item(1, "EmptyImage", mode=4, outputs=[("INT", "INT", [1])])
    target = item(2, "ImageScaleBy", values=["area", 3], inputs=[("scale_by", "FLOAT", 1, "scale_by")])
    assert made([bypassed, target], [[1, 1, 0, 2, 0, "INT"]])["2"]["scale_by"] == 3


# -- A7, A8: subgraphs and group nodes --------------------------------------------------------------------------------

THROUGH = {
    "id": "through",
    "nodes": [],
    "inputs": [{"name": "in", "type": "IMAGE", "linkIds": [5]}],
    "outputs": [{"name": "out", "type": "IMAGE", "linkIds": [99, 5]}],
    "links": [{"id": 5, "origin_id": -10, "origin_slot": 0, "target_id": -20, "target_slot": 0}],
}


def test_an_output_wired_straight_to_an_input_passes_through() -> None:
    instance = item(4, "through", inputs=[("in", "IMAGE", 1)], outputs=[("out", "IMAGE", [2])])
    links = [[1, 1, 0, 4, 0, "IMAGE"], [2, 4, 0, 2, 0, "IMAGE"]]
    assert made([picture(), instance, preview(2, 2)], links, definitions={"subgraphs": [THROUGH]}) == {
        "1": made([picture()])["1"],
        "2": {"images": ["1", 0]},
    }


def two_widgets() -> dict[str, Any]:
    """A definition whose one input drives widgets of two nodes, one of them an inner primitive's target too."""
    nodes = [
        item(1, "ImageScaleBy", values=["area", 1], inputs=[("scale_by", "FLOAT", 1, "scale_by")]),
        item(2, "ImageScaleBy", values=["area", 2], inputs=[("scale_by", "FLOAT", 2, "scale_by")]),
        item(3, "PrimitiveNode", values=[9, "fixed"], outputs=[("INT", "INT", [3])]),
        item(4, "EmptyImage", values=[1, 1, 1, 1], inputs=[("width", "INT", 3, "width")]),
    ]
    links = [
        {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
        {"id": 2, "origin_id": -10, "origin_slot": 0, "target_id": 2, "target_slot": 0},
        {"id": 3, "origin_id": 3, "origin_slot": 0, "target_id": 4, "target_slot": 0},
    ]
    inputs = [{"name": "factor", "type": "FLOAT", "linkIds": [1, 2]}]
    return {"id": "two", "nodes": nodes, "links": links, "inputs": inputs, "outputs": []}


def test_one_promoted_value_drives_every_widget_it_is_linked_to_and_inner_primitives_act() -> None:
    prompt = made([item(7, "two", values=[5])], definitions={"subgraphs": [two_widgets()]})
    assert [prompt[f"7:{at}"]["scale_by"] for at in (1, 2)] == [5, 5]
    assert prompt["7:4"]["width"] == 9


def test_a_primitive_outside_sets_a_promoted_input() -> None:
    primitive = item(8, "PrimitiveNode", values=[4, "fixed"], outputs=[("FLOAT", "FLOAT", [1])])
    instance = item(7, "two", values=[5], inputs=[("factor", "FLOAT", 1, "factor")])
    prompt = made([primitive, instance], [[1, 8, 0, 7, 0, "FLOAT"]], definitions={"subgraphs": [two_widgets()]})
    assert [prompt[f"7:{at}"]["scale_by"] for at in (1, 2)] == [4, 4]


@pytest.mark.parametrize(
    ("proxies", "values", "expected"),
    [
        ([["-1", "factor"]], [6], [6, 6]),
        ([["1", "scale_by", "third"]], [6], [6, 2]),
        ([["1", "scale_by"], ["2", "scale_by"]], [None, 8], [1, 8]),
        ([["1", "$$canvas-image-preview"], ["2", "scale_by"]], [3, 8], [1, 8]),
        ([], [6], [6, 6]),
        ([["-1", "factor"], ["1", "scale_by"]], [6], [6, 6]),
    ],
)
def test_proxy_widgets_say_whose_each_value_is(proxies: list[Any], values: list[Any], expected: list[int]) -> None:
    instance = item(7, "two", values=values, properties={"proxyWidgets": proxies})
    prompt = made([instance], definitions={"subgraphs": [two_widgets()]})
    assert [prompt[f"7:{at}"]["scale_by"] for at in (1, 2)] == expected


def one_picture(name: str, width: int) -> dict[str, Any]:
    """A subgraph that gives a picture of that width."""
    inner = item(12, "EmptyImage", values=[width, 64, 1, 0], outputs=[("IMAGE", "IMAGE", [23])])
    link = {"id": 23, "origin_id": 12, "origin_slot": 0, "target_id": -20, "target_slot": 0}
    side = {"name": "out", "type": "IMAGE", "linkIds": [23]}
    return {"id": "same", "name": name, "nodes": [inner], "links": [link], "inputs": [], "outputs": [side]}


def holder(inside: dict[str, Any]) -> dict[str, Any]:
    """A subgraph that holds an instance of `same`, and a definition of it."""
    return {"id": "holder", "name": "Holder", "nodes": [item(30, "same")], "definitions": {"subgraphs": [inside]}}


AT = "workflow.definitions.subgraphs"


@pytest.mark.parametrize(
    ("definitions", "width", "told"),
    [
        (
            [one_picture("A", 64), one_picture("B", 128), one_picture("C", 8)],
            64,
            [("B", "[1]", "[0]"), ("C", "[2]", "[0]")],
        ),
        ([one_picture("A", 64), one_picture("A", 64)], 64, []),
        ([one_picture("A", 64), holder(one_picture("B", 128))], 64, [("B", "[1].definitions.subgraphs[0]", "[0]")]),
        ([holder(one_picture("B", 128)), one_picture("A", 64)], 128, [("A", "[1]", "[0].definitions.subgraphs[0]")]),
    ],
)
def test_of_two_subgraphs_of_one_id_the_first_counts_and_the_other_is_told(
    definitions: list[dict[str, Any]], width: int, told: list[tuple[str, str, str]]
) -> None:
    """As editor 1.58.1 was seen to do, which keeps one list for definitions at any depth. 1.27.10 takes the last."""
    known = {definition["id"] for definition in definitions}
    nodes = [item(at, kind) for at, kind in ((4, "same"), (5, "holder")) if kind in known]
    prompt, warnings = convert({"nodes": nodes, "links": [], "definitions": {"subgraphs": definitions}}, MORE)
    assert {node["inputs"]["width"] for node in prompt.values()} == {width}
    first = "B" if width == 128 else "A"
    assert warnings == [
        f"{AT}{where}: the subgraph {name!r} has the id of {first!r} at {AT}{before}, same, and is another; the first "
        "counts, as in the editor"
        for name, where, before in told
    ]


def test_ids_that_python_wrote_as_floats_are_the_same_ids() -> None:
    """`json.dumps` of a number that went through a table is 2.0; a page knows one kind of number."""
    links = [[7.0, 1.0, 0.0, 2, 0, "IMAGE"]]
    prompt = made([picture(links=[7]), preview(2, 7), preview(3, None)], links)
    assert prompt["2"] == {"images": ["1", 0]}
    named = [item(1.0, "EmptyImage", values=[1, 1, 1, 0]), preview(2, 7.0)]  # type: ignore[arg-type]
    assert made(named, [[7, 1, 0, 2, 0, "IMAGE"]])["2"] == {"images": ["1", 0]}


def test_definitions_may_be_nested_inside_a_definition() -> None:
    outer = {**THROUGH, "id": "outer", "nodes": [item(3, "two", values=[5])], "links": [], "inputs": [], "outputs": []}
    prompt = made(
        [item(9, "outer")], definitions={"subgraphs": [{**outer, "definitions": {"subgraphs": [two_widgets()]}}]}
    )
    assert prompt["9:3:1"]["scale_by"] == 5


GROUP: dict[str, Any] = {
    "nodes": [
        {
            "type": "EmptyImage",
            "widgets_values": [1, 1, 1, 1],
            "inputs": [{"name": "width", "type": "INT", "widget": {"name": "width"}}],
            "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
        },
        {
            "type": "Reroute",
            "inputs": [{"name": "", "type": "*"}],
            "outputs": [{"name": "", "type": "*"}],
        },
        {
            "type": "ImageScaleBy",
            "widgets_values": ["area", 2],
            "inputs": [{"name": "image", "type": "IMAGE"}],
            "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
        },
        {"type": "Sample", "widgets_values": [1, "fixed", 2, "euler"], "inputs": [], "outputs": []},
    ],
    "links": [[0, 0, 1, 0, 5, "IMAGE"], [1, 0, 2, 0, 6, "IMAGE"], [None, 0, 0, 0, 7, "INT"]],
    "external": [[0, 0, "IMAGE"]],
}


@pytest.mark.parametrize("prefix", ["workflow>", "workflow/"])
def test_a_group_has_converted_widgets_inner_reroutes_controls_and_external_outputs(prefix: str) -> None:
    values = [8, 2, 0, "nearest-exact", 3, 77, "randomize", 30, "heun"]  # width is an input now
    instance = item(
        4,
        f"{prefix}Made",
        values=values,
        inputs=[("EmptyImage width", "INT", 3, "width")],
        outputs=[("IMAGE", "IMAGE", [1]), ("IMAGE 1", "IMAGE", [2])],
    )
    number = item(5, "Sample", values=[1, "fixed", 2, "euler"], outputs=[("INT", "INT", [3])])
    links = [[1, 4, 0, 2, 0, "IMAGE"], [2, 4, 1, 3, 0, "IMAGE"], [3, 5, 0, 4, 0, "INT"]]
    nodes = [number, instance, preview(2, 1), preview(3, 2)]
    prompt = made(nodes, links, extra={"groupNodes": {"Made": GROUP}})
    assert prompt["4:0"] == {"width": ["5", 0], "height": 8, "batch_size": 2, "color": 0}
    assert prompt["4:2"] == {"image": ["4:0", 0], "upscale_method": "nearest-exact", "scale_by": 3}
    assert prompt["4:3"] == {"seed": 77, "steps": 30, "name": "heun"}
    assert (prompt["2"], prompt["3"]) == ({"images": ["4:0", 0]}, {"images": ["4:2", 0]})
    assert "4:1" not in prompt


def test_slots_a_group_hides_are_not_on_its_instances_and_hidden_widgets_keep_their_place() -> None:
    inner = {"type": "Blend", "inputs": [{"name": n, "type": t} for n, t in (("one", "IMAGE"), ("two", "IMAGE"))]}
    inner["outputs"] = [{"name": "IMAGE", "type": "IMAGE"}, {"name": "MASK", "type": "MASK"}]
    sizes = {"type": "EmptyImage", "widgets_values": [1, 1, 1, 1], "inputs": [], "outputs": []}
    config = {
        "0": {"input": {"one": {"visible": False}}, "output": {"0": {"visible": False}}},
        "1": {"input": {"width": {"visible": False}, "height": {"name": "tall"}}},
    }
    group = {"nodes": [inner, sizes], "links": [], "external": [], "config": config}
    instance = item(
        4, "workflow>Made", values=[5, 6, 7, 8], inputs=[("two", "IMAGE", 1)], outputs=[("MASK", "MASK", [2])]
    )
    links = [[1, 1, 0, 4, 0, "IMAGE"], [2, 4, 0, 2, 0, "MASK"]]
    prompt = made([picture(), instance, preview(2, 2)], links, extra={"groupNodes": {"Made": group}})
    assert prompt["4:0"] == {"two": ["1", 0]}
    assert prompt["4:1"] == {"width": 5, "height": 6, "batch_size": 7, "color": 8}
    assert prompt["2"] == {"images": ["4:0", 1]}


def test_inner_nodes_that_list_a_slot_for_every_widget_do_not_shift_the_values() -> None:
    def slots(*names: str) -> list[dict[str, Any]]:
        return [{"name": name, "type": "INT", "widget": {"name": name}} for name in names]

    sizes = {"type": "EmptyImage", "widgets_values": [1, 1, 1, 1], "outputs": [{"name": "IMAGE", "type": "IMAGE"}]}
    sizes["inputs"] = slots("width", "height", "batch_size", "color")
    sample = {"type": "Sample", "widgets_values": [1, "fixed", 2, "euler"], "inputs": slots("seed", "steps", "name")}
    group = {"nodes": [sizes, sample], "links": [], "external": []}
    inputs = [(name, "INT", None, name) for name in ("width", "height", "batch_size", "color", "seed", "steps", "name")]
    instance = item(4, "workflow>Made", values=[5, 6, 7, 8, 77, "fixed", 30, "heun"], inputs=inputs)
    prompt = made([instance], [], extra={"groupNodes": {"Made": group}})
    assert prompt["4:0"] == {"width": 5, "height": 6, "batch_size": 7, "color": 8}
    assert prompt["4:1"] == {"seed": 77, "steps": 30, "name": "heun"}


def widget_slots(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "type": "INT", "widget": {"name": name}} for name in names]


def test_inner_nodes_older_than_todays_widgets_or_of_unknown_classes_keep_the_values_in_their_places() -> None:
    old = {"type": "EmptyImage", "widgets_values": [1, 1], "inputs": widget_slots("width", "height"), "outputs": []}
    strange = {"type": "Unheard", "widgets_values": [3, "fixed", 4], "inputs": widget_slots("seed", "more")}
    sample = {"type": "Sample", "widgets_values": [1, "fixed", 2, "euler"], "inputs": widget_slots("seed", "steps")}
    kept = {"type": "Sample", "widgets_values": {"seed": 1, "steps": 2, "name": "euler"}, "inputs": []}
    nodes = [old, *({**node, "outputs": []} for node in (strange, sample, kept))]
    group = {"nodes": nodes, "links": [], "external": []}
    values = [5, 6, 70, "randomize", 9, 77, "fixed", 30, "heun", 78, "fixed", 31, "lms"]
    instance = item(4, "workflow>Made", values=values, inputs=[])
    prompt = made([instance], [], extra={"groupNodes": {"Made": group}})
    assert (prompt["4:0"]["width"], prompt["4:0"]["height"]) == (5, 6)
    assert prompt["4:2"] == {"seed": 77, "steps": 30, "name": "heun"}
    assert prompt["4:3"] == {"seed": 78, "steps": 31, "name": "lms"}


def test_a_widget_that_a_packs_script_makes_has_its_place_and_its_value() -> None:
    declared = {
        "input": {"required": {"colour": ["COLOR", {"widgetType": "MY_COLOUR", "default": "#000"}], "n": ["INT", {}]}},
        "output": [],
    }
    nodes = [item(1, "Coloured", values=["#fff", 3])]
    prompt, warnings = convert({"nodes": nodes, "links": []}, {**NODES, "Coloured": declared})
    assert (prompt["1"]["inputs"], warnings) == ({"colour": "#fff", "n": 3}, [])


def test_an_external_entry_that_holds_a_node_is_skipped() -> None:
    group = {**GROUP, "external": [[{"type": "EmptyImage", "index": 0}, 0, "IMAGE"]]}
    instance = item(4, "workflow>Made", values=[8, 2, 0, "area", 3, 77, "fixed", 30, "heun"])
    instance["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": [1]}]
    prompt = made([instance, preview(2, 1)], [[1, 4, 0, 2, 0, "IMAGE"]], extra={"groupNodes": {"Made": group}})
    assert prompt["2"] == {"images": ["4:2", 0]}  # the first inner output that is not used inside


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"nodes": [7]}, r"groupNodes\[Made\].nodes\[0\]: expected an object, found int"),
        ({"nodes": [{"type": "Text", "inputs": 3}]}, r"nodes\[0\].inputs: expected a list, found int"),
        ({"nodes": [{"type": "Text", "outputs": ["x"]}]}, r"outputs\[0\]: expected an object, found str"),
        ({"nodes": [], "links": 1}, r"groupNodes\[Made\].links: expected a list"),
    ],
)
def test_a_damaged_group_is_refused_by_its_place(group: Any, message: str) -> None:
    with pytest.raises(BadDocument, match=message):
        made([item(4, "workflow>Made")], [], extra={"groupNodes": {"Made": group}})


def test_a_link_with_a_lost_or_impossible_end_is_no_link() -> None:
    for row in ([1, None, 0, 2, 0, "IMAGE"], [1, 1, None, 2, 0, "IMAGE"], [1, 1, -1, 2, 0, "IMAGE"]):
        assert made([picture(), preview(2, 1)], [row])["2"] == {}


# -- A10: where documents come from -----------------------------------------------------------------------------------


def test_a_clipboard_collection_is_no_workflow() -> None:
    with pytest.raises(BadDocument, match="templates"):
        parse_workflow({"templates": [{"name": "a", "data": "{}"}]}, NODES)
