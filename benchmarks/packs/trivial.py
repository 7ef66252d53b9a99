"""A node pack of nodes that do nothing, to measure what is round them."""

import time
from typing import Any


class PassText:
    """Hands a text on."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "give", ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"value": ("STRING", {"default": ""})}}

    def give(self, value: str) -> tuple[str]:
        """The same."""
        return (value,)


class ShowText(PassText):
    """Shows a text."""

    OUTPUT_NODE = True

    def give(self, value: str) -> Any:  # type: ignore[override]  # the convention's other form of result
        """The text, for the page."""
        return {"ui": {"text": [value]}, "result": (value,)}


class Rest(PassText):
    """Takes its time."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"value": ("STRING", {"default": ""}), "seconds": ("FLOAT", {"default": 1.0})}}

    def give(self, value: str, seconds: float) -> tuple[str]:  # type: ignore[override]  # its own inputs
        """The same, later."""
        time.sleep(seconds)
        return (value,)


NODE_CLASS_MAPPINGS = {"PassText": PassText, "ShowText": ShowText, "Rest": Rest}
