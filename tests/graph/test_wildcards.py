"""Types that packs make equal to all others: a `str` with its own `__eq__`, which Python then leaves without a hash."""

from typing import Any, ClassVar

from sigmagraph.engine.graph.comfy.comfy_class import from_class
from sigmagraph.engine.graph.plan import plan
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


class Gathers:
    """Takes whole lists, and keeps with what its checks were called."""

    RETURN_TYPES = ()
    FUNCTION = "go"
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    asked: ClassVar[dict[str, Any]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        size = ("INT", {"min": "0", "max": None})
        return {"required": {"size": size}, "hidden": {"own": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, size: Any, own: Any) -> str:  # noqa: N802  # as above
        cls.asked["changed"] = size, own
        return "same"

    @classmethod
    def VALIDATE_INPUTS(cls, own: Any, input_types: Any) -> bool:  # noqa: N802  # as above
        cls.asked["valid"] = own, input_types
        return True

    def go(self, size: Any, own: Any) -> tuple[()]:
        return ()


def test_checks_of_a_class_that_takes_lists_are_given_lists_and_a_bound_that_is_no_number_is_none() -> None:
    nodes = {"Gathers": from_class(Gathers, "Gathers")}
    plan(validate(parse_workflow({"7": {"class_type": "Gathers", "inputs": {"size": 3}}}), nodes))
    assert Gathers.asked == {"changed": ([3], ["7"]), "valid": (["7"], [{}])}
