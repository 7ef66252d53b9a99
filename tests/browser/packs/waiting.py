"""A node pack as people write them for ComfyUI: one node that takes its time and reports progress."""

import time
from typing import Any

from comfy.utils import ProgressBar


class WaitAndPass:
    """Hands the picture on after a while."""

    CATEGORY = "test"
    FUNCTION = "wait"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        seconds = ("FLOAT", {"default": 2.0, "min": 0.0, "max": 600.0})
        return {"required": {"image": ("IMAGE",), "seconds": seconds, "turn": ("INT", {"default": 0})}}

    def wait(self, image: Any, seconds: float, turn: int) -> tuple[Any]:
        """Wait in a hundred steps."""
        bar = ProgressBar(100)
        for _ in range(100):
            time.sleep(seconds / 100)
            bar.update(1)
        return (image,)


NODE_CLASS_MAPPINGS = {"WaitAndPass": WaitAndPass}
