"""Independent implementations that tests compare with, loaded without their unrelated requirements."""

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType


@cache
def k_diffusion_sampling() -> ModuleType:
    """k-diffusion's `sampling` module alone.

    The package's `__init__` imports its training half (torchvision, skimage, clip ...), and its `utils` imports
    torchvision for two picture conversions; neither is needed to sample. So the package is entered without its
    `__init__`, with a stand-in for that one import.
    """
    package_spec = importlib.util.find_spec("k_diffusion")
    assert package_spec is not None, "the oracles are missing: see the test command in README.md"
    package = ModuleType("k_diffusion")
    package.__path__ = list(package_spec.submodule_search_locations or [])
    stand_ins = {"k_diffusion": package}
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            stand_ins[name] = ModuleType(name)
        stand_ins["torchvision.transforms"].functional = stand_ins["torchvision.transforms.functional"]  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in stand_ins:
            if name.startswith("torchvision"):
                del sys.modules[name]
