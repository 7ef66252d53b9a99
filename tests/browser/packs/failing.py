"""A node pack with one node that cannot do what it is asked."""

from typing import Any


class RaiseWithWords:
    """Raises what it is told."""

    CATEGORY = "test"
    FUNCTION = "work"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"image": ("IMAGE",), "words": ("STRING", {"default": "no"})}}

    def work(self, image: Any, words: str) -> tuple[Any]:
        """Raise."""
        raise ValueError(words)


NODE_CLASS_MAPPINGS = {"RaiseWithWords": RaiseWithWords}
