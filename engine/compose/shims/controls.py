"""ControlNets: `comfy.controlnet`, and where else packs look for its loader."""

from pathlib import Path
from typing import Any

from sigmagraph.engine.models.load import load_controlnet
from sigmagraph.nodes.support.packs.controls import ControlBase, PackControlNet

__all__ = ["names"]


def load(ckpt_path: str, model: Any = None, model_options: Any = None) -> PackControlNet:
    """The ControlNet of a file; of this family none is a difference from a model."""
    return PackControlNet(load_controlnet(Path(ckpt_path)))


def names() -> dict[str, dict[str, Any]]:
    """The names that say something of nets of this family; of other families' classes nothing is an instance."""
    classes = {"ControlBase": ControlBase, "ControlNet": PackControlNet}
    return {"comfy.controlnet": {**classes, "load_controlnet": load}, "comfy.sd": {"load_controlnet": load}}
