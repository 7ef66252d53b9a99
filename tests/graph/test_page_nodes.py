"""Nodes of the page alone, by the packs they come from: what is drawn with them converts as if lines were drawn."""

from typing import Any

import pytest

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor import convert, group_members
from sigmagraph.engine.graph.editor.page_nodes import SILENT
from tests.graph.test_editor import NODES, item, made, picture, preview

MORE: dict[str, Any] = {
    **NODES,
    "Loader": {"input": {"required": {}}, "output": ["MODEL", "CLIP", "VAE"]},
    "Encode": {"input": {"required": {"clip": ["CLIP"], "text": ["STRING", {}]}}, "output": ["COND"]},
    "Draw": {
        "input": {"required": {"model": ["MODEL"], "positive": ["COND"], "negative": ["COND"], "seed": ["INT", {}]}},
        "output": ["LATENT"],
        "display_name": "Draw it",
    },
    "PrimitiveInt": {
        "input": {"required": {"value": ["INT", {"control_after_generate": True}]}},
        "output": ["INT"],
    },
}


def setter(node_id: int, name: str, link: int | None, kind: str = "SetNode", **more: Any) -> dict[str, Any]:
    slots, ends = [("IMAGE", "IMAGE", link)], [("IMAGE", "IMAGE", None)]
    return item(node_id, kind, values=[name], inputs=slots, outputs=ends, **more)


def getter(node_id: int, name: str, links: list[int], kind: str = "GetNode", **more: Any) -> dict[str, Any]:
    return item(node_id, kind, values=[name], outputs=[("IMAGE", "IMAGE", links)], **more)


def loader(node_id: int = 1, links: tuple[Any, Any, Any] = ([], [], [])) -> dict[str, Any]:
    names = ("MODEL", "CLIP", "VAE")
    return item(node_id, "Loader", outputs=list(zip(names, names, links, strict=True)))


def encoder(node_id: int, links: Any = (), **more: Any) -> dict[str, Any]:
    slots = [("clip", "CLIP", None)]
    return item(node_id, "Encode", values=["t"], inputs=slots, outputs=[("COND", "COND", links)], **more)


def sampler(node_id: int, **more: Any) -> dict[str, Any]:
    slots = [("model", "MODEL", None), ("positive", "COND", None), ("negative", "COND", None)]
    return item(node_id, "Draw", values=[7, "fixed"], inputs=slots, **more)


def everywhere(
    node_id: int, slots: list[tuple[str, str, Any]], kind: str = "Anything Everywhere", **conditions: Any
) -> dict[str, Any]:
    properties = {"ue_properties": {"version": "7.0.1", **conditions}}
    return item(node_id, kind, inputs=slots, properties=properties)


def sent(nodes: list[dict[str, Any]], links: list[Any], **more: Any) -> tuple[dict[str, Any], list[str]]:
    prompt, warnings = convert({"nodes": nodes, "links": links, **more}, MORE, choose=min)
    return {node_id: node["inputs"] for node_id, node in prompt.items()}, warnings


# -- pairs that hand a value on by its name ---------------------------------------------------------------------------


@pytest.mark.parametrize(("sets", "gets"), [("SetNode", "GetNode"), ("easy setNode", "easy getNode")])
def test_what_is_set_under_a_name_arrives_where_it_is_got(sets: str, gets: str) -> None:
    nodes = [picture(links=[1]), setter(2, "photo", 1, sets), getter(3, "photo", [2], gets), preview(4, 2)]
    prompt = made(nodes, [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"]])
    assert prompt["4"] == {"images": ["1", 0]}
    assert prompt.keys() == {"1", "4"}


def test_a_setting_node_hands_on_through_its_own_output_too() -> None:
    nodes = [picture(links=[1]), setter(2, "photo", 1), preview(4, 2)]
    assert made(nodes, [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 4, 0, "IMAGE"]])["4"] == {"images": ["1", 0]}


def test_the_modes_of_a_pair() -> None:
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"]]
    of_setter = [picture(links=[1]), setter(2, "p", 1, mode=2), getter(3, "p", [2]), preview(4, 2)]
    assert made(of_setter, links)["4"] == {"images": ["1", 0]}, "the page looks for the link, not at the node"
    of_getter = [picture(links=[1]), setter(2, "p", 1), getter(3, "p", [2], mode=2), preview(4, 2)]
    assert made(of_getter, links)["4"] == {}


def test_a_name_nothing_sets_is_said_and_of_two_the_first_counts() -> None:
    nodes = [picture(links=[1]), picture(5, links=[3]), setter(2, "a", 1), setter(6, "a", 3), getter(3, "a", [2])]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [3, 5, 0, 6, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"]]
    assert made([*nodes, preview(4, 2)], links)["4"] == {"images": ["1", 0]}
    _, warnings = convert({"nodes": [getter(3, "b", [2]), preview(4, 2)], "links": links[2:]}, NODES)
    assert warnings == ["node 3 (GetNode): nothing sets 'b'"]


def test_a_getting_node_in_a_subgraph_reads_what_is_set_around_it() -> None:
    inner = {
        "id": "sub",
        "nodes": [getter(1, "photo", [9]), preview(2, 9)],
        "links": [{"id": 9, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0}],
    }
    nodes = [picture(links=[1]), setter(2, "photo", 1), item(3, "sub")]
    prompt = made(nodes, [[1, 1, 0, 2, 0, "IMAGE"]], definitions={"subgraphs": [inner]})
    assert prompt["3:2"] == {"images": ["1", 0]}


def test_a_pair_that_feeds_itself_is_a_circle() -> None:
    nodes = [setter(1, "a", 1), getter(2, "a", [1]), preview(3, 2)]
    with pytest.raises(BadDocument, match="circle"):
        made(nodes, [[1, 2, 0, 1, 0, "IMAGE"], [2, 1, 0, 3, 0, "IMAGE"]])


# -- nodes that carry nothing, and reroutes of packs ------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SILENT))
def test_switches_and_notes_of_packs_are_not_sent(kind: str) -> None:
    nodes = [picture(), item(9, kind, values=["x"], inputs=[("", "*", 5)], outputs=[("OPT_CONNECTION", "*", [6])])]
    prompt, warnings = convert({"nodes": nodes, "links": [[5, 1, 0, 9, 0, "*"]]}, NODES)
    assert (list(prompt), warnings) == (["1"], [])


def test_a_reroute_of_rgthree_passes_on() -> None:
    nodes = [picture(links=[1]), item(2, "Reroute (rgthree)", inputs=[("", "*", 1)], outputs=[("", "*", [2])])]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]]
    assert made([*nodes, preview(3, 2)], links)["3"] == {"images": ["1", 0]}


# -- values sent without a line ---------------------------------------------------------------------------------------


def test_a_value_goes_to_every_open_input_of_its_type() -> None:
    slots = [("anything", "MODEL", 1), ("anything11", "CLIP", 2), ("anything12", "*", None)]
    nodes = [loader(links=([1], [2], [])), everywhere(2, slots), encoder(3), encoder(4), sampler(5)]
    prompt, warnings = sent(nodes, [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 1, 2, 1, "CLIP"]])
    assert prompt["3"]["clip"] == prompt["4"]["clip"] == ["1", 1]
    assert prompt["5"] == {"seed": 7, "model": ["1", 0]}
    assert "2" not in prompt
    assert warnings == []


def test_a_connected_input_keeps_its_link_and_a_dead_one_is_open() -> None:
    kept = item(3, "Encode", inputs=[("clip", "CLIP", 3)])
    dead = item(4, "Encode", inputs=[("clip", "CLIP", 99)])
    nodes = [loader(1, ([], [2], [])), loader(9, ([], [3], [])), everywhere(2, [("anything", "CLIP", 2)]), kept, dead]
    prompt, _ = sent(nodes, [[2, 1, 1, 2, 0, "CLIP"], [3, 9, 1, 3, 0, "CLIP"]])
    assert (prompt["3"]["clip"], prompt["4"]["clip"]) == (["9", 1], ["1", 1])


def two_sources(kind: str, labels: tuple[str, str], **conditions: Any) -> list[dict[str, Any]]:
    node = everywhere(4, [("anything", "COND", 1), ("anything11", "COND", 2)], kind, **conditions)
    node["inputs"][0]["label"], node["inputs"][1]["label"] = labels
    return [encoder(2, [1]), encoder(3, [2]), node, sampler(5)]


ENCODED = [[1, 2, 0, 4, 0, "COND"], [2, 3, 0, 4, 1, "COND"]]


@pytest.mark.parametrize(
    ("rule", "labels", "arrives"),
    [
        (0, ("positive", "negative"), "both"),
        (0, ("positiv", "negative"), "negative"),
        (1, ("pos", "neg"), "both"),
        (2, ("my positive", "x negative"), "both"),
        (3, ("Draw it", "other"), "title"),
        (4, ("^p", "e$"), "clash"),
        (4, ("^p", "^n"), "both"),
        (9, ("", ""), "nothing"),
    ],
)
def test_of_two_values_of_one_type_labels_say_which_goes_where(
    rule: int, labels: tuple[str, str], arrives: str
) -> None:
    prompt, warnings = sent(two_sources("Anything Everywhere", labels, repeated_type_rule=rule), ENCODED)
    got = {name: value for name, value in prompt["5"].items() if name != "seed"}
    both = {"positive": ["2", 0], "negative": ["3", 0]}
    expected: dict[str, Any] = {
        "both": both,
        "negative": {"negative": ["3", 0]},
        "title": {"positive": ["2", 0], "negative": ["2", 0]},
        "clash": {"negative": ["3", 0]},
        "nothing": {},
    }
    assert got == expected[arrives]
    assert bool(warnings) == (arrives in ("clash", "nothing"))


def test_prompts_everywhere_sends_by_the_name_of_the_input() -> None:
    prompt, _ = sent(two_sources("Prompts Everywhere", ("positive", "negative")), ENCODED)
    assert (prompt["5"]["positive"], prompt["5"]["negative"]) == (["2", 0], ["3", 0])
    prompt, _ = sent(two_sources("Prompts Everywhere", ("CONDITIONING", "CONDITIONING")), ENCODED)
    assert (prompt["5"]["positive"], prompt["5"]["negative"]) == (["2", 0], ["3", 0]), "files of 2023"
    prompt, _ = sent(two_sources("Prompts Everywhere", ("positive", "negative")), ENCODED[1:])
    assert "positive" not in prompt["5"], "the negative goes to no other input"


@pytest.mark.parametrize("is_old", [True, False])
def test_the_seed_node_is_a_primitive_that_sends_to_inputs_named_seed(is_old: bool) -> None:
    values, ends = [99, "fixed"], [("int", "INT", None)]
    slots = [] if is_old else [("seed", "INT", None, "seed")]
    target = sampler(5)
    target["inputs"].append({"name": "seed", "type": "INT", "link": None, "widget": {"name": "seed"}})
    if not is_old:
        target["properties"] = {"ue_properties": {"version": "7.0", "widget_ue_connectable": {"seed": True}}}
    prompt, warnings = sent([item(8, "Seed Everywhere", values=values, inputs=slots, outputs=ends), target], [])
    assert (prompt["8"], prompt["5"]["seed"], warnings) == ({"value": 99}, ["8", 0], [])


@pytest.mark.parametrize("is_open", [True, False])
def test_a_widget_receives_only_where_the_file_says_so(is_open: bool) -> None:
    target = sampler(5, properties={"ue_properties": {"version": "7.0", "widget_ue_connectable": {"seed": is_open}}})
    target["inputs"].append({"name": "seed", "localized_name": "seed", "type": "INT", "widget": {"name": "seed"}})
    source = item(8, "PrimitiveInt", values=[99, "fixed"], outputs=[("INT", "INT", [1])])
    prompt, _ = sent([source, everywhere(2, [("anything", "INT", 1)]), target], [[1, 8, 0, 2, 0, "INT"]])
    assert prompt["5"]["seed"] == (["8", 0] if is_open else 7)


@pytest.mark.parametrize(
    ("conditions", "reached"),
    [
        ({"title_regex": "one"}, {"3"}),
        ({"title_regex": "one", "title_regex_invert": True}, {"4"}),
        ({"title_regex": ".*"}, {"3", "4"}),
        ({"title_regex": "("}, {"3", "4"}),
        ({"input_regex": "^clip$"}, {"3", "4"}),
        ({"input_regex": "vae"}, set()),
        ({"group_regex": "left"}, {"3"}),
        ({"group_regex": "left", "group_regex_invert": True}, {"4"}),
        ({"group_restricted": 1}, {"3"}),
        ({"group_restricted": 2}, {"4"}),
        ({"color_restricted": 1}, {"4"}),
        ({"color_restricted": 2}, {"3"}),
        ({"color_restricted": 1, "group_restricted": 1}, set()),
    ],
)
def test_conditions_restrict_where_a_value_goes(conditions: dict[str, Any], reached: set[str]) -> None:
    ones = {"title": "number one", "pos": [0, 0], "size": [100, 100]}
    others = {"title": "another", "pos": [1000, 0], "size": {"0": 100, "1": 100}, "color": "#232"}
    node = everywhere(2, [("anything", "CLIP", 1)], **conditions) | {"pos": [50, 300], "size": [80, 40]}
    groups = [
        {"title": "left", "bounding": [-10, -40, 500, 500]},
        {"title": "right", "bounding": [900, -40, 500, 500]},
    ]
    nodes = [loader(1, ([], [1], [])), node | {"color": "#232"}, encoder(3, **ones), encoder(4, **others)]
    prompt, _ = sent(nodes, [[1, 1, 1, 2, 0, "CLIP"]], groups=groups)
    assert {node_id for node_id in ("3", "4") if "clip" in prompt[node_id]} == reached


def test_the_narrower_broadcast_counts_and_two_alike_are_none() -> None:
    nodes = [loader(1, ([], [1], [])), loader(9, ([], [2], [])), everywhere(2, [("anything", "CLIP", 1)])]
    links = [[1, 1, 1, 2, 0, "CLIP"], [2, 9, 1, 3, 0, "CLIP"]]
    narrow = everywhere(3, [("anything", "CLIP", 2)], input_regex="clip")
    prompt, warnings = sent([*nodes, narrow, encoder(5)], links)
    assert (prompt["5"]["clip"], warnings) == (["9", 1], [])
    prompt, warnings = sent([*nodes, everywhere(3, [("anything", "CLIP", 2)]), encoder(5)], links)
    assert "clip" not in prompt["5"]
    assert warnings == ["node 5.clip: 2 broadcasts of one priority; none is taken"]
    stated = everywhere(3, [("anything", "CLIP", 2)], priority=50)
    assert sent([*nodes, stated, encoder(5)], links)[0]["5"]["clip"] == ["9", 1]


def test_old_files_have_their_patterns_in_widgets_and_restrictions_beside() -> None:
    old = item(2, "Anything Everywhere?", values=["one", ".*", ".*"], inputs=[("anything", "*", 1)])
    nodes = [loader(1, ([], [1], [])), old, encoder(3, title="one"), encoder(4, title="two")]
    prompt, _ = sent(nodes, [[1, 1, 1, 2, 0, "CLIP"]])
    assert ("clip" in prompt["3"], "clip" in prompt["4"]) == (True, False)


def test_a_node_that_broadcasts_by_itself_sends_its_outputs_but_those_it_keeps() -> None:
    conditions = {"version": "7.5", "output_not_broadcasting": {"CLIP": True}}
    source = loader() | {"properties": {"ue_convert": True, "ue_properties": conditions}}
    prompt, _ = sent([source, encoder(3), sampler(5)], [])
    assert (prompt["3"], prompt["5"]["model"]) == ({"text": "t"}, ["1", 0])


def test_any_inputs_and_combos_receive_only_where_the_node_says_so() -> None:
    target = item(5, "Whatever", inputs=[("any", "*", None)])
    for send_to_any, arrives in ((0, {}), (1, {"any": ["1", 1]})):
        node = everywhere(2, [("anything", "CLIP", 1)], send_to_any=send_to_any)
        prompt, _ = sent([loader(1, ([], [1], [])), node, target], [[1, 1, 1, 2, 0, "CLIP"]])
        assert prompt["5"] == arrives


def test_refusing_nodes_and_inputs_muted_senders_and_muted_sources_take_no_part() -> None:
    refusing = encoder(3, properties={"rejects_ue_links": True})
    closed = encoder(4, properties={"ue_properties": {"version": "7", "input_ue_unconnectable": {"clip": True}}})
    links = [[1, 1, 1, 2, 0, "CLIP"]]
    source, sender = loader(1, ([], [1], [])), everywhere(2, [("anything", "CLIP", 1)])
    prompt, _ = sent([source, sender, refusing, closed], links)
    assert ("clip" in prompt["3"], "clip" in prompt["4"]) == (False, False)
    for nodes in ([source, sender | {"mode": 2}, encoder(5)], [source | {"mode": 2}, sender, encoder(5)]):
        assert "clip" not in sent(nodes, links)[0]["5"]


def test_a_broadcast_inside_a_subgraph_reaches_its_own_canvas_and_the_open_output() -> None:
    inner = {
        "id": "sub",
        "nodes": [everywhere(1, [("anything", "CLIP", 9)]), encoder(2)],
        "links": [{"id": 9, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0}],
        "inputs": [{"name": "clip", "type": "CLIP", "linkIds": [9]}],
        "outputs": [{"name": "CLIP", "type": "CLIP", "linkIds": []}],
    }
    host = item(3, "sub", inputs=[("clip", "CLIP", 1)], outputs=[("CLIP", "CLIP", [2])])
    after = item(4, "Encode", inputs=[("clip", "CLIP", 2)])
    links = [[1, 1, 1, 3, 0, "CLIP"], [2, 3, 0, 4, 0, "CLIP"]]
    nodes = [loader(1, ([], [1], [])), host, after, encoder(6)]
    prompt, _ = sent(nodes, links, definitions={"subgraphs": [inner]})
    assert prompt["3:2"]["clip"] == prompt["4"]["clip"] == ["1", 1]
    assert "clip" not in prompt["6"]


def test_an_explosive_pattern_is_refused_in_time() -> None:
    node = everywhere(2, [("anything", "CLIP", 1)], title_regex="(a|a)*(a|aa)+$b(?<!c)(.*.*)*=x")
    target = encoder(3, title="a" * 60_000 + "!")
    with pytest.raises(BadDocument, match="too long"):
        sent([loader(1, ([], [1], [])), node, target], [[1, 1, 1, 2, 0, "CLIP"]])


@pytest.mark.parametrize("values", [5, True, "IMAGE", [], [None], {"a": 1}])
def test_a_setter_without_a_name_to_read_sets_nothing(values: Any) -> None:
    odd = setter(2, "x", 1)
    odd["widgets_values"] = values
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"]]
    assert made([picture(1, [1]), odd, getter(3, "I", [2]), preview(4, 2)], links)["4"] == {}


@pytest.mark.parametrize("pattern", ["(?aL)x", "a{99999999999}", "("])
def test_a_pattern_that_is_none_is_passed_over_as_on_the_page(pattern: str) -> None:
    nodes = [loader(links=([1], [], [])), everywhere(2, [("MODEL", "MODEL", 1)], title_regex=pattern), sampler(3)]
    prompt, _ = sent(nodes, [[1, 1, 0, 2, 0, "MODEL"]])
    assert prompt["3"]["model"] == ["1", 0]


def test_frames_that_restrict_very_many_values_refuse_the_file_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at all frames serves every value; what goes beyond any drawing would take minutes."""
    place = {"pos": [0, 0], "size": [10, 10]}
    senders = [
        everywhere(at, [("MODEL", "MODEL", at)], group_restricted=1, group_regex="a") | place for at in range(2, 42)
    ]
    nodes = [loader(links=([*range(2, 42)], [], [])), *senders]
    links = [[at, 1, 0, at, 0, "MODEL"] for at in range(2, 42)]
    frames = [{"title": "a", "bounding": [-9, -99, 100, 200]}] * 40
    looks: list[int] = []
    monkeypatch.setattr(group_members.DrawnFrames, "look", lambda _, count: looks.append(count))
    sent(nodes, links, groups=frames)
    assert sum(looks) == 40 * 41 + 40 * 2 * 40 * (1 + 40)
    monkeypatch.undo()
    monkeypatch.setattr(group_members, "MOST_LOOKS", 10_000)
    with pytest.raises(BadDocument, match="restricted by groups and colours make more than 10000 looks"):
        sent(nodes, links, groups=frames)
