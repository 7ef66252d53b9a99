"""What a drawing offers in the editor's app mode, as places of the prompt."""

import sys
from typing import Any

import pytest

from sigmagraph.engine.graph.editor import app_mode, convert
from sigmagraph.engine.graph.editor.app_mode import AppMode
from sigmagraph.engine.graph.editor.scope import Scope, every_scope

TEXT = {"name": "text", "type": "STRING", "widget": {"name": "text"}}
DECLARED: dict[str, Any] = {
    "Say": {"input": {"required": {"text": ["STRING", {}]}}, "output": ["STRING"], "output_node": False},
    "Show": {"input": {"required": {"text": ["STRING", {"forceInput": True}]}}, "output": [], "output_node": True},
}
CANVAS = "e13112f7-3d09-4ae1-9e84-633a0627d945"


def said(node_id: int, text: str, link: int | None = None, label: str = "", **more: Any) -> dict[str, Any]:
    slot = TEXT | {"link": link} | ({"label": label} if label else {})
    outputs = [{"name": "STRING", "type": "STRING", "links": []}]
    return {"id": node_id, "type": "Say", "inputs": [slot], "outputs": outputs, "widgets_values": [text], **more}


def drawing(*inputs: Any, outputs: Any = (), **instance: Any) -> dict[str, Any]:
    """Two nodes on the canvas, and an instance of a subgraph whose one promoted text goes to two nodes inside."""
    inside = {
        "id": CANVAS,
        "inputs": [{"name": "words", "type": "STRING", "linkIds": [1, 2]}],
        "outputs": [{"name": "STRING", "type": "STRING", "linkIds": [3]}],
        "nodes": [said(4, "a", 1), said(5, "b", 2), said(6, "own", title="Own")],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 4, "target_slot": 0, "type": "STRING"},
            {"id": 2, "origin_id": -10, "origin_slot": 0, "target_id": 5, "target_slot": 0, "type": "STRING"},
            {"id": 3, "origin_id": 4, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "STRING"},
        ],
    }
    words = {"name": "words", "type": "STRING", "widget": {"name": "words"}, "link": None}
    host = {"id": 3, "type": CANVAS, "inputs": [words], "outputs": [], "widgets_values": ["both"], **instance}
    show = {"id": 9, "type": "Show", "inputs": [{"name": "text", "type": "STRING", "link": 7}], "outputs": []}
    return {
        "id": "whole",
        "nodes": [said(1, "first", title="First"), said(2, "second", label="what to say"), host, show],
        "links": [[7, 1, 0, 9, 0, "STRING"]],
        "definitions": {"subgraphs": [inside]},
        "extra": {"linearData": {"inputs": list(inputs), "outputs": list(outputs)}},
        "version": 0.4,
    }


def offered(document: dict[str, Any]) -> Any:
    prompt, _ = convert(document, DECLARED)
    app = app_mode(document, DECLARED, prompt)
    return app and ([(row.name, list(row.targets)) for row in app.inputs], list(app.outputs))


def test_widgets_are_offered_in_their_order_under_the_label_the_page_shows() -> None:
    found = offered(drawing(["2", "text"], [1, "text", {"height": 80}], outputs=["9", 8]))
    assert found == ([("what to say", ["2.text"]), ("text", ["1.text"])], ["9"])


def test_a_promoted_widget_sets_every_input_it_is_drawn_to() -> None:
    assert offered(drawing(["3", "words"])) == ([("words", ["3:4.text", "3:5.text"])], [])


def test_a_proxied_widget_is_the_one_inside() -> None:
    found = offered(drawing(["3", "text"], properties={"proxyWidgets": [["6", "text"]]}, widgets_values=["else"]))
    assert found == ([("text", ["3:6.text"])], [])


@pytest.mark.parametrize("place", [f"{CANVAS}:6:text", f"{CANVAS}:6", "3:6"])
def test_a_node_inside_is_named_by_its_canvas_or_by_its_id_in_the_prompt(place: str) -> None:
    assert offered(drawing([place, "text"])) == ([("text", ["3:6.text"])], [])


def test_one_name_for_two_widgets_has_their_nodes_before_it_and_is_counted_where_those_are_alike() -> None:
    document = drawing(["1", "text"], ["3:6", "text"], ["whole:1:text", "text"])
    assert [name for name, _ in offered(document)[0]] == ["First.text", "Own.text", "First.text 2"]


@pytest.mark.parametrize(
    "row",
    [["9", "text"], ["1", "nothing"], ["77", "text"], ["1"], "1", None, ["1", 5], [None, "text"], ["x:y", "text"]],
)
def test_what_is_no_value_of_the_prompt_is_left_out(row: Any) -> None:
    assert offered(drawing(row)) is None
    assert offered(drawing(row, ["1", "text"])) == ([("text", ["1.text"])], [])


@pytest.mark.parametrize("data", [None, [], {"inputs": {}}, {"inputs": None, "outputs": "9"}, {}])
def test_a_drawing_that_offers_nothing_has_no_app(data: Any) -> None:
    document = drawing()
    document["extra"]["linearData"] = data
    assert offered(document) is None


def test_the_canvases_are_looked_at_once_whatever_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Scope] = []

    def counted(root: Scope) -> Any:
        looks.append(root)
        return every_scope(root)

    monkeypatch.setattr(sys.modules[AppMode.__module__], "every_scope", counted)
    assert offered(drawing(*[["99:1", "text"]] * 50, ["2", "text"])) == ([("what to say", ["2.text"])], [])
    assert len(looks) == 1
