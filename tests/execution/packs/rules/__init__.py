"""A pack of node classes in ComfyUI's convention that uses every feature of it, loaded by the public loader."""

from .basics import BASICS
from .flow import FLOW
from .hooks import HOOKS

NODE_CLASS_MAPPINGS = {**BASICS, **FLOW, **HOOKS}
NODE_DISPLAY_NAME_MAPPINGS = {"P.Concat": "Concatenate"}
