"""A node pack for tests: a node that hangs the first time it runs."""

import time
from pathlib import Path
from typing import Any


class HangOnce:
    """Passes an image on; says nothing for a very long time where `unless` is not there yet, and makes it first."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "go", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"image": ("IMAGE",), "unless": ("STRING", {"default": ""})}}

    def go(self, image: Any, unless: str) -> tuple[Any]:
        if not Path(unless).exists():
            Path(unless).touch()
            time.sleep(10_000)
        return (image,)


NODE_CLASS_MAPPINGS = {"HangOnce": HangOnce}
