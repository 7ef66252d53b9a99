from collections.abc import Callable
from typing import Any

import pytest

from sigmagraph.engine.errors import BadValue, UnknownName
from sigmagraph.engine.graph.overrides import override
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Link
from sigmagraph.nodes import NODES


@pytest.fixture
def changed(txt2img: Callable[..., Any]) -> Callable[[str], Any]:
    def change(setting: str) -> Any:
        before = parse_workflow(txt2img())
        after = override(before, [setting], NODES)
        [(node_id, name)] = [
            (node_id, name)
            for node_id, node in after.nodes.items()
            for name, value in node.inputs.items()
            if type(value) is not type(before.nodes[node_id].inputs.get(name))
            or value != before.nodes[node_id].inputs.get(name)
        ]
        return node_id, name, after.nodes[node_id].inputs[name]

    return change


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("5.seed=9", ("5", "seed", 9)),
        ("KSampler.cfg=2.5", ("5", "cfg", 2.5)),
        ("Prompt.text=a = b.c", ("2", "text", "a = b.c")),
        ("Prompt.text=42", ("2", "text", "42")),
        ("Prompt.text=", ("2", "text", "")),
        ("KSampler.sampler_name=heun", ("5", "sampler_name", "heun")),
        ('5.positive=["3", 0]', ("5", "positive", Link("3", 0))),
        ("5.steps=many", ("5", "steps", "many")),
    ],
)
def test_a_setting_finds_its_node_and_reads_its_value(
    changed: Callable[[str], Any], setting: str, expected: tuple[str, str, object]
) -> None:
    assert changed(setting) == expected


@pytest.mark.parametrize("setting", ["seed=9", "KSampler.seed", ".seed=9", "KSampler.=9", ""])
def test_a_setting_of_the_wrong_form_is_refused_with_the_form(changed: Callable[[str], Any], setting: str) -> None:
    with pytest.raises(BadValue, match=r"NODE\.INPUT=VALUE"):
        changed(setting)


def test_an_unknown_node_or_input_is_told_with_the_nearest(changed: Callable[[str], Any]) -> None:
    with pytest.raises(UnknownName, match="did you mean 'Prompt'"):
        changed("Promt.text=a")
    with pytest.raises(UnknownName, match=r"input of node 5 \(KSampler\); did you mean 'steps'"):
        changed("KSampler.step=3")
    with pytest.raises(UnknownName, match="SaveImage"):
        changed("SaveImage.prompt=3")


def test_a_name_that_two_nodes_share_is_refused_with_their_ids(changed: Callable[[str], Any]) -> None:
    with pytest.raises(BadValue, match="2 are called that, with the ids 2, 3"):
        changed("CLIPTextEncode.text=a")
