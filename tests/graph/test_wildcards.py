"""Types that packs make equal to all others: a `str` with its own `__eq__`, which Python then leaves without a hash."""

from typing import Any

from sigmagraph.engine.graph.comfy.comfy_class import from_class
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate


class Anything(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


ANYTHING = Anything("*")


class Passes:
    RETURN_TYPES = (ANYTHING,)
    FUNCTION = "go"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"value": (ANYTHING, {})}, "optional": {"number": ("INT", {"default": 1})}}

    def go(self, value: Any, number: int = 1) -> tuple[Any]:
        return (value,)


def test_a_wildcard_without_a_hash_is_declared_and_fits_everything_both_ways() -> None:
    node = from_class(Passes, "Passes")
    assert str(node.object_info()["output"][0]) == "*"
    assert node.inputs[0].type == "IMAGE"
    assert node.outputs[0].type == "LATENT"
    assert len({node.inputs[0].type, "INT", "FLOAT"}) == 3
    links = {"value": ["1", 0], "number": ["1", 0]}
    prompt = {"1": {"class_type": "Passes", "inputs": {"value": 3}}, "2": {"class_type": "Passes", "inputs": links}}
    assert set(validate(parse_workflow(prompt), {"Passes": node}).nodes) == {"1", "2"}
