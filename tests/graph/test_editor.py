import random
from datetime import UTC, datetime
from typing import Any

import pytest

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor import convert
from sigmagraph.engine.graph.editor.texts import dynamic_prompt, file_prefix
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Link

NODES: dict[str, Any] = {
    "EmptyImage": {
        "input": {
            "required": {
                "width": ["INT", {"default": 512}],
                "height": ["INT", {"default": 512}],
                "batch_size": ["INT", {"default": 1}],
                "color": ["INT", {"default": 0}],
            }
        },
        "output": ["IMAGE"],
    },
    "ImageScaleBy": {
        "input": {
            "required": {
                "image": ["IMAGE"],
                "upscale_method": [["nearest-exact", "area"]],
                "scale_by": ["FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0}],
            }
        },
        "output": ["IMAGE"],
    },
    "Blend": {
        "input": {"required": {"one": ["IMAGE"], "two": ["IMAGE"], "mask": ["MASK"]}},
        "output": ["IMAGE", "MASK"],
    },
    "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "display_name": "Preview Image"},
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}},
        "output": [],
    },
    "Sample": {
        "input": {
            "required": {
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "name": [["euler", "heun"]],
            }
        },
        "output": ["LATENT"],
    },
    "Text": {"input": {"required": {"text": ["STRING", {"dynamicPrompts": True}]}}, "output": ["STRING"]},
    "LoadImage": {
        "input": {
            "required": {"image": [["a.png"], {"image_upload": True}]},
            "optional": {"strength": ["FLOAT", {"default": 1}]},
        },
        "output": ["IMAGE", "MASK"],
    },
    "Old": {
        "input": {"required": {"count": ["INT", {"forceInput": True}], "scale": ["FLOAT", {}]}},
        "output": ["FLOAT"],
    },
}


def item(
    node_id: int, kind: str, *, values: Any = None, inputs: Any = (), outputs: Any = (), mode: int = 0, **more: Any
) -> dict[str, Any]:
    slots = [dict(zip(("name", "type", "link", "widget"), row, strict=False)) for row in inputs]
    for slot in slots:
        if isinstance(slot.get("widget"), str):
            slot["widget"] = {"name": slot["widget"]}
    listed = [{"name": name, "type": kind, "links": links} for name, kind, links in outputs]
    return {
        "id": node_id,
        "type": kind,
        "mode": mode,
        "widgets_values": values,
        "inputs": slots,
        "outputs": listed,
        **more,
    }


def made(nodes: list[dict[str, Any]], links: list[Any] = [], **more: Any) -> dict[str, Any]:  # noqa: B006
    prompt, _ = convert({"nodes": nodes, "links": links, "version": 0.4, **more}, NODES, choose=min)
    return {node_id: node["inputs"] for node_id, node in prompt.items()}


def test_widget_values_are_read_in_order_and_controls_stay_out() -> None:
    assert made([item(1, "Sample", values=[7, "randomize", 30, "heun"])]) == {
        "1": {"seed": 7, "steps": 30, "name": "heun"}
    }


def test_missing_control_values_do_not_shift_the_others() -> None:
    assert made([item(1, "Sample", values=[7, 30, "heun"])]) == {"1": {"seed": 7, "steps": 30, "name": "heun"}}


def test_too_few_values_leave_defaults_and_too_many_are_ignored() -> None:
    assert made([item(1, "Sample", values=[7])])["1"] == {"seed": 7, "steps": 20, "name": "euler"}
    assert made([item(1, "Sample", values=[7, "fixed", 3, "heun", 1, 2, 3])])["1"] == {
        "seed": 7,
        "steps": 3,
        "name": "heun",
    }


def test_values_may_be_an_object_or_stand_beside_their_names() -> None:
    expected = {"seed": 1, "steps": 2, "name": "heun"}
    assert made([item(1, "Sample", values={"steps": 2, "name": "heun", "seed": 1})])["1"] == expected
    named = {"seed": 1, "control_after_generate": "fixed", "steps": 2, "name": "heun"}
    assert made([item(1, "Sample", values=[9, "fixed", 9, "euler"], widgets_values_named=named)])["1"] == expected


def test_the_upload_button_has_a_place_and_is_not_sent() -> None:
    assert made([item(1, "LoadImage", values=["b.png", 0.5, "image"])])["1"] == {"image": "b.png", "strength": 0.5}


def test_placeholders_of_forced_inputs_in_old_files_are_dropped() -> None:
    assert made([item(1, "Old", values=[3, 0.5])])["1"] == {"scale": 0.5}


def test_list_values_are_wrapped() -> None:
    assert made([item(1, "Text", values=[["a", "b"]])])["1"] == {"text": {"__value__": ["a", "b"]}}


def picture(node_id: int = 1, links: Any = (1,), **more: Any) -> dict[str, Any]:
    return item(node_id, "EmptyImage", values=[64, 64, 1, 0], outputs=[("IMAGE", "IMAGE", list(links))], **more)


def preview(node_id: int, link: int | None, **more: Any) -> dict[str, Any]:
    return item(node_id, "PreviewImage", inputs=[("images", "IMAGE", link)], **more)


@pytest.mark.parametrize(
    "links",
    [
        [[1, 1, 0, 2, 0, "IMAGE"], None],
        [{"id": 1, "origin_id": "1", "origin_slot": "0", "target_id": 2, "target_slot": 0}],
    ],
)
def test_both_forms_of_links_are_read(links: list[Any]) -> None:
    assert made([picture(), preview(2, 1)], links)["2"] == {"images": ["1", 0]}


def test_a_link_only_the_table_knows_is_restored() -> None:
    assert made([picture(), preview(2, None)], [[1, 1, 0, 2, 0, "IMAGE"]])["2"] == {"images": ["1", 0]}


def test_a_dangling_link_is_no_link_and_a_warning() -> None:
    prompt, warnings = convert({"nodes": [preview(2, 9)], "links": []}, NODES)
    assert prompt["2"]["inputs"] == {}
    assert warnings == ["node 2.images: link 9 is not in the file"]


def test_reroutes_pass_links_through_and_are_not_sent() -> None:
    nodes = [picture(), item(5, "Reroute", inputs=[("", "*", 1)], outputs=[("", "IMAGE", [2])]), preview(2, 2)]
    assert made(nodes, [[1, 1, 0, 5, 0, "*"], [2, 5, 0, 2, 0, "IMAGE"]]) == {
        "1": {"width": 64, "height": 64, "batch_size": 1, "color": 0},
        "2": {"images": ["1", 0]},
    }


def test_a_muted_reroute_cuts() -> None:
    nodes = [picture(), item(5, "Reroute", inputs=[("", "*", 1)], outputs=[("", "IMAGE", [2])], mode=2), preview(2, 2)]
    assert made(nodes, [[1, 1, 0, 5, 0, "*"], [2, 5, 0, 2, 0, "IMAGE"]])["2"] == {}


def test_a_circle_of_reroutes_is_refused() -> None:
    nodes = [item(5, "Reroute", inputs=[("", "*", 1)]), item(6, "Reroute", inputs=[("", "*", 2)]), preview(2, 3)]
    links = [[1, 6, 0, 5, 0, "*"], [2, 5, 0, 6, 0, "*"], [3, 5, 0, 2, 0, "IMAGE"]]
    with pytest.raises(BadDocument, match=r"node 2 \(PreviewImage\): its input runs in a circle"):
        made(nodes, links)


def test_notes_are_not_sent() -> None:
    assert made([item(1, "Note", values=["hello"]), item(2, "MarkdownNote", values=["hello"])]) == {}


def test_a_muted_node_vanishes_with_the_links_from_it() -> None:
    assert made([picture(mode=2), preview(2, 1)], [[1, 1, 0, 2, 0, "IMAGE"]]) == {"2": {}}


def test_a_link_from_a_muted_node_leaves_a_converted_widget_its_own_value() -> None:
    nodes = [picture(mode=2), item(2, "Sample", values=[7, "fixed", 30, "heun"], inputs=[("seed", "INT", 1, "seed")])]
    assert made(nodes, [[1, 1, 0, 2, 0, "INT"]])["2"] == {"seed": 7, "steps": 30, "name": "heun"}


BLEND_INPUTS = [("one", "IMAGE", 1), ("two", "IMAGE", 2), ("mask", "MASK", 3)]


@pytest.mark.parametrize(
    ("slot", "wanted", "expected"),
    [(0, "IMAGE", ["1", 0]), (1, "MASK", ["4", 1]), (1, "*", ["3", 0]), (0, "*", ["1", 0])],
)
def test_a_bypassed_node_hands_on_the_input_that_fits(slot: int, wanted: str, expected: list[Any]) -> None:
    nodes = [
        picture(1),
        picture(3, [2]),
        item(4, "LoadImage", values=["a.png"], outputs=[("IMAGE", "IMAGE", []), ("MASK", "MASK", [3])]),
        item(5, "Blend", inputs=BLEND_INPUTS, outputs=[("IMAGE", "IMAGE", [4]), ("MASK", "MASK", [4])], mode=4),
        item(2, "PreviewImage", inputs=[("images", wanted, 4)]),
    ]
    links = [[1, 1, 0, 5, 0, ""], [2, 3, 0, 5, 1, ""], [3, 4, 1, 5, 2, ""], [4, 5, slot, 2, 0, ""]]
    assert made(nodes, links)["2"] == {"images": expected}


def test_a_bypassed_node_whose_chosen_input_is_open_hands_on_nothing() -> None:
    nodes = [
        picture(3, [2]),
        item(
            5, "Blend", inputs=[("one", "IMAGE", None), ("two", "IMAGE", 2)], outputs=[("IMAGE", "IMAGE", [4])], mode=4
        ),
        preview(2, 4),
    ]
    assert made(nodes, [[2, 3, 0, 5, 1, ""], [4, 5, 0, 2, 0, ""]])["2"] == {}


@pytest.mark.parametrize("mode", [0, 2, 4])
def test_a_primitive_writes_its_value_whatever_its_mode(mode: int) -> None:
    nodes = [
        item(9, "PrimitiveNode", values=[99, "fixed"], outputs=[("INT", "INT", [1])], mode=mode),
        item(2, "Sample", values=[7, "fixed", 30, "heun"], inputs=[("seed", "INT", 1, "seed")]),
    ]
    assert made(nodes, [[1, 9, 0, 2, 0, "INT"]]) == {"2": {"seed": 99, "steps": 30, "name": "heun"}}


def test_a_primitive_is_clamped_to_the_range_of_its_target_and_does_not_act_through_a_reroute() -> None:
    scaled = item(
        2, "ImageScaleBy", values=["area", 2.0], inputs=[("image", "IMAGE", None), ("scale_by", "FLOAT", 1, "scale_by")]
    )
    primitive = item(9, "PrimitiveNode", values=[50.0], outputs=[("FLOAT", "FLOAT", [1])])
    assert made([primitive, scaled], [[1, 9, 0, 2, 1, "FLOAT"]])["2"]["scale_by"] == 8.0
    reroute = item(5, "Reroute", inputs=[("", "*", 2)], outputs=[("", "FLOAT", [1])])
    assert made([primitive, reroute, scaled], [[2, 9, 0, 5, 0, "*"], [1, 5, 0, 2, 1, "FLOAT"]])["2"]["scale_by"] == 2.0


ENLARGE = "6f0c7a1e-0000-4000-8000-0000000000aa"


def enlarge(inner_mode: int = 0) -> dict[str, Any]:
    inner = item(
        12,
        "ImageScaleBy",
        values=["nearest-exact", 2],
        inputs=[("image", "IMAGE", 21), ("scale_by", "FLOAT", 22, "scale_by")],
        outputs=[("IMAGE", "IMAGE", [23])],
        mode=inner_mode,
    )
    return {
        "id": ENLARGE,
        "name": "Enlarge",
        "nodes": [inner],
        "inputs": [
            {"name": "picture", "type": "IMAGE", "linkIds": [21]},
            {"name": "factor", "type": "FLOAT", "linkIds": [22]},
        ],
        "outputs": [{"name": "out", "type": "IMAGE", "linkIds": [23]}],
        "links": [
            {"id": 21, "origin_id": -10, "origin_slot": 0, "target_id": 12, "target_slot": 0},
            {"id": 22, "origin_id": -10, "origin_slot": 1, "target_id": 12, "target_slot": 1},
            {"id": 23, "origin_id": 12, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    }


def with_instance(mode: int = 0, inner_mode: int = 0, **more: Any) -> dict[str, Any]:
    instance = item(
        4,
        ENLARGE,
        inputs=[("picture", "IMAGE", 1)],
        outputs=[("out", "IMAGE", [2])],
        mode=mode,
        **{"values": [3], **more},
    )
    links = [[1, 1, 0, 4, 0, "IMAGE"], [2, 4, 0, 2, 0, "IMAGE"]]
    return made([picture(), instance, preview(2, 2)], links, definitions={"subgraphs": [enlarge(inner_mode)]})


def test_a_subgraph_is_unfolded_with_the_values_of_its_instance() -> None:
    assert with_instance() == {
        "1": {"width": 64, "height": 64, "batch_size": 1, "color": 0},
        "4:12": {"upscale_method": "nearest-exact", "scale_by": 3, "image": ["1", 0]},
        "2": {"images": ["4:12", 0]},
    }


def test_an_instance_without_values_leaves_the_inner_ones() -> None:
    assert with_instance(values=None)["4:12"]["scale_by"] == 2


def test_proxy_widgets_replace_inner_widgets_for_this_instance() -> None:
    proxies = {"proxyWidgets": [["-1", "factor"], ["12", "upscale_method"], ["12", "$$preview"]]}
    inner = with_instance(values=[5, "area", 1], properties=proxies)["4:12"]
    assert (inner["scale_by"], inner["upscale_method"]) == (5, "area")


@pytest.mark.parametrize(
    ("mode", "inner_mode", "expected"), [(4, 0, ["1", 0]), (0, 4, ["1", 0]), (2, 0, None), (0, 2, None)]
)
def test_modes_of_an_instance_and_of_what_is_inside(mode: int, inner_mode: int, expected: list[Any] | None) -> None:
    prompt = with_instance(mode, inner_mode)
    assert set(prompt) == {"1", "2"}
    assert prompt["2"].get("images") == expected


def test_subgraphs_nest_and_promote_through_each_other() -> None:
    outer = {
        "id": "outer",
        "inputs": [{"name": "p", "type": "IMAGE", "linkIds": [1]}, {"name": "f", "type": "FLOAT", "linkIds": [2]}],
        "outputs": [{"name": "o", "type": "IMAGE", "linkIds": [3]}],
        "nodes": [
            item(
                31,
                ENLARGE,
                inputs=[("picture", "IMAGE", 1), ("factor", "FLOAT", 2, "factor")],
                outputs=[("out", "IMAGE", [3])],
            )
        ],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 31, "target_slot": 0},
            {"id": 2, "origin_id": -10, "origin_slot": 1, "target_id": 31, "target_slot": 1},
            {"id": 3, "origin_id": 31, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    }
    instances = [
        item(4, "outer", values=[6], inputs=[("p", "IMAGE", 1)]),
        item(7, "outer", values=[7], inputs=[("p", "IMAGE", 2)]),
    ]
    links = [[1, 1, 0, 4, 0, "IMAGE"], [2, 1, 0, 7, 0, "IMAGE"], [3, 7, 0, 2, 0, "IMAGE"]]
    prompt = made([picture(), *instances, preview(2, 3)], links, definitions={"subgraphs": [outer, enlarge()]})
    assert prompt["4:31:12"] == {"upscale_method": "nearest-exact", "scale_by": 6, "image": ["1", 0]}
    assert prompt["7:31:12"]["scale_by"] == 7
    assert prompt["2"] == {"images": ["7:31:12", 0]}


def test_a_subgraph_inside_itself_is_refused() -> None:
    endless = {"id": "x", "nodes": [item(1, "x")], "links": [], "inputs": [], "outputs": []}
    with pytest.raises(BadDocument, match="nested more than 64 deep, or in themselves"):
        made([item(1, "x")], definitions={"subgraphs": [endless]})


def test_a_small_file_that_draws_a_large_subgraph_very_often_is_refused() -> None:
    large = {"id": "x", "nodes": [picture(at) for at in range(1000)], "links": [], "inputs": [], "outputs": []}
    with pytest.raises(BadDocument, match="more than 50000 nodes in all"):
        made([item(at, "x") for at in range(5000)], definitions={"subgraphs": [large]})


def test_a_group_node_is_unfolded_with_its_widgets_in_order() -> None:
    group = {
        "nodes": [
            {
                "type": "EmptyImage",
                "widgets_values": [1, 1, 1, 1],
                "inputs": [],
                "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
            },
            {
                "type": "ImageScaleBy",
                "widgets_values": ["area", 2],
                "inputs": [{"name": "image", "type": "IMAGE", "link": 5}],
                "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
            },
        ],
        "links": [[0, 0, 1, 0, 5, "IMAGE"]],
        "external": [],
    }
    instance = item(4, "workflow>Made", values=[8, 9, 2, 0, "nearest-exact", 3], outputs=[("IMAGE", "IMAGE", [1])])
    assert made([instance, preview(2, 1)], [[1, 4, 0, 2, 0, "IMAGE"]], extra={"groupNodes": {"Made": group}}) == {
        "4:0": {"width": 8, "height": 9, "batch_size": 2, "color": 0},
        "4:1": {"upscale_method": "nearest-exact", "scale_by": 3, "image": ["4:0", 0]},
        "2": {"images": ["4:1", 0]},
    }


def test_titles_travel_as_meta_and_fall_back_to_the_display_name() -> None:
    prompt, _ = convert({"nodes": [preview(1, None), preview(2, None, title="mine")], "links": []}, NODES)
    assert [node["_meta"]["title"] for node in prompt.values()] == ["Preview Image", "mine"]


def test_an_unknown_class_is_a_warning_that_names_it() -> None:
    prompt, warnings = convert({"nodes": [item(1, "Elsewhere")], "links": []}, NODES)
    assert prompt["1"]["class_type"] == "Elsewhere"
    assert warnings == ["node 1: class 'Elsewhere' is unknown; its widgets are lost"]


def test_an_editor_document_becomes_a_workflow_and_is_kept() -> None:
    document = {"nodes": [picture(), preview(2, 1)], "links": [[1, 1, 0, 2, 0, "IMAGE"]]}
    workflow = parse_workflow(document, NODES)
    assert workflow.nodes["2"].inputs == {"images": Link("1", 0)}
    assert workflow.editor is document


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"nodes": [5]}, r"workflow\.nodes\[0\]: expected an object, found int"),
        ({"nodes": [{"id": 1}]}, r"workflow\.nodes\[0\]: a node needs an id and a type"),
        ({"nodes": [], "links": [[1, 2]]}, r"workflow\.links\[0\]: expected \[id, from, slot, to, slot, type\]"),
        (
            {"nodes": [{"id": 1, "type": "X", "inputs": {}}]},
            r"workflow\.nodes\[0\]\.inputs: expected a list, found dict",
        ),
    ],
)
def test_a_broken_editor_document_is_refused_with_its_place(document: dict[str, Any], place: str) -> None:
    with pytest.raises(BadDocument, match=place):
        convert(document, NODES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {b|c} d", "a b d"),
        ("{x|{a|b}}", "a"),
        (r"\{b\|c\}", "{b|c}"),
        ("one // two\nthree", "one \nthree"),
        ("a /* b\n c */ d", "a  d"),
        ("no braces | here", "no braces | here"),
        ("{unclosed|text", "{unclosed|text"),
    ],
)
def test_dynamic_prompts_are_resolved(text: str, expected: str) -> None:
    assert dynamic_prompt(text, min) == expected


def test_every_choice_comes_up() -> None:
    dice = random.Random(1)
    assert {dynamic_prompt("{a|b|{c|d}}", dice.choice) for _ in range(100)} == {"a", "b", "c", "d"}


def test_file_prefixes_name_other_widgets_and_the_date() -> None:
    nodes = [
        item(1, "Sample", values=[7, "fixed", 30, "heun"], title="draft"),
        item(2, "SaveImage", values=["%draft.seed%/%Sample.name%_%date:yyyy-MM-dd%_%none.x%_%width%"]),
        item(3, "Sample", values=[1, "fixed", 1, "euler"], properties={"Node name for S&R": "Sample"}),
    ]
    prompt, _ = convert({"nodes": nodes, "links": []}, NODES, now=datetime(2025, 3, 9, tzinfo=UTC))
    assert prompt["2"]["inputs"]["filename_prefix"] == "7/euler_2025-03-09_%none.x%_%width%"
    assert file_prefix("%a.b%", lambda *_: "x/y:z", datetime(2025, 3, 9, tzinfo=UTC)) == "x_y_z"
