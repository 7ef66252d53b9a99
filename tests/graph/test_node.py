from collections.abc import Generator
from typing import Annotated, Any

import pytest

from sigmagraph.engine.graph.node import (
    Extra,
    FileIn,
    Hidden,
    Optional,
    Options,
    Progress,
    Range,
    Services,
    UiResult,
    node,
)
from tests.graph.small import NODES, Picture, blend, split

pytestmark = pytest.mark.quick

Seed = Annotated[int, Range(0, 2**64 - 1, control_after_generate=True)]


class Files:
    """Services that know three checkpoints."""

    def files(self, folder: str) -> list[str]:
        return [f"{folder}-{i}.safetensors" for i in range(3)]


def test_the_signature_is_the_wire_order_and_groups_follow_from_defaults() -> None:
    info = blend.object_info()
    assert info["input_order"] == {"required": ["image", "factor", "mode", "flip"], "optional": ["other"]}
    assert list(info["input"]["required"]) == info["input_order"]["required"]


def test_object_info_reads_as_the_editor_expects_it() -> None:
    assert blend.object_info() == {
        "input": {
            "required": {
                "image": ["IMAGE"],
                "factor": ["FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": "how much"}],
                "mode": [["normal", "screen", "multiply"], {"default": "normal"}],
                "flip": ["BOOLEAN", {"default": False}],
            },
            "optional": {"other": ["IMAGE"]},
        },
        "input_order": {"required": ["image", "factor", "mode", "flip"], "optional": ["other"]},
        "output": ["IMAGE"],
        "output_is_list": [False],
        "output_name": ["IMAGE"],
        "name": "Blend",
        "display_name": "Blend pictures",
        "description": "One picture over another.",
        "python_module": "tests.graph.small",
        "category": "test",
        "output_node": False,
    }


def test_output_tooltips_appear_only_where_there_are_some() -> None:
    assert NODES["Blank"].object_info()["output_tooltips"] == ["a picture"]
    assert "output_tooltips" not in blend.object_info()


def test_a_node_is_called_like_its_function() -> None:
    assert blend(image="a", factor=1.0) == "a*1.0/normal/False/None"
    assert split(value=42) == (4, 2)


def test_calling_a_generator_node_runs_it_to_its_end() -> None:
    @node("Slow", category="test")
    def slow(*, steps: int = 3) -> Generator[Progress, None, int]:
        """Counts."""
        for step in range(steps):
            yield Progress(step, steps)
        return steps

    assert slow(steps=5) == 5
    assert slow.outputs[0].type == "INT"


def test_a_seed_asks_the_editor_for_a_control_widget() -> None:
    @node("Draw", category="test")
    def draw(*, seed: Seed = 0) -> int:
        """A number."""
        return seed

    options = draw.object_info()["input"]["required"]["seed"][1]
    assert options == {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}


def test_file_combos_list_their_folder_and_offer_uploads() -> None:
    @node("Load", category="test")
    def load(*, name: Annotated[str, FileIn("vae")], image: Annotated[str, FileIn("input", upload="image")]) -> str:
        """Two names."""
        return name + image

    required = load.object_info(Files())["input"]["required"]  # type: ignore[arg-type]  # asks for files only
    assert required["name"] == [["vae-0.safetensors", "vae-1.safetensors", "vae-2.safetensors"]]
    assert required["image"][1] == {"image_upload": True}


def test_options_may_come_from_a_function_of_the_services_or_of_nothing() -> None:
    def from_services(services: Services) -> list[str]:
        return services.files("loras")[:1]

    @node("Pick", category="test")
    def pick(
        *,
        one: Annotated[str, Options(from_services)],
        two: Annotated[str, Options(lambda: ["x"])] = "x",
        three: Annotated[str, Options(["a", "b"], named=True)] = "a",
    ) -> str:
        """Three names."""
        return one + two + three

    required = pick.object_info(Files())["input"]["required"]  # type: ignore[arg-type]  # asks for files only
    assert required["one"] == [["loras-0.safetensors"]]
    assert required["two"] == [["x"], {"default": "x"}]
    assert required["three"] == ["COMBO", {"multiselect": False, "options": ["a", "b"], "default": "a"}]


def test_hidden_inputs_are_on_the_wire_only_if_the_editor_knows_them() -> None:
    @node("Save", category="test", output_node=True)
    def save(
        *,
        image: Picture,
        prompt: Annotated[Any, Hidden("PROMPT")] = None,
        services: Annotated[Any, Hidden("SERVICES")] = None,
    ) -> UiResult:
        """Nothing."""
        return UiResult(ui={"images": [image, prompt, services]})

    assert save.object_info()["input"]["hidden"] == {"prompt": "PROMPT"}
    assert save.outputs == ()


def test_an_input_with_a_default_can_be_declared_optional() -> None:
    @node("Maybe", category="test")
    def maybe(*, lift: Annotated[float, Optional(), Extra({"advanced": True})] = 1.5) -> float:
        """The lift."""
        return lift

    assert maybe.object_info()["input"]["optional"] == {"lift": ["FLOAT", {"default": 1.5, "advanced": True}]}


def test_a_positional_parameter_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"positional\(value\): node inputs are keyword-only"):

        @node("Positional", category="test")
        def positional(value: int) -> int:
            """The value."""
            return value


def test_a_type_without_a_socket_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="annotate it with Socket"):

        @node("Bare", category="test")
        def bare(*, value: list[int]) -> int:
            """The sum."""
            return sum(value)


def test_the_schema_changes_with_the_inputs_and_not_with_the_options() -> None:
    def declared(choices: list[str], name: str) -> str:
        def function(*, value: str) -> str:
            return value

        function.__annotations__ = {"value": Annotated[str, Options(choices)], "return": str}
        made = node("X", category="test")(function)
        renamed = type(made)(**{**made.__dict__, "inputs": (type(made.inputs[0])(name, "COMBO"),)})
        return renamed.schema

    assert declared(["a"], "value") == declared(["a", "b"], "value")
    assert declared(["a"], "value") != declared(["a"], "other")
