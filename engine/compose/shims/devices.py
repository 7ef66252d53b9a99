"""Where things are: `comfy.model_management`, answered by the one place that decides it here.

Loading, unloading and casting are the engine's own business; what packs call for them does nothing or hands back what
it was given.
"""

from enum import Enum
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import is_out_of_memory
from sigmagraph.engine.host import free_bytes
from sigmagraph.engine.models.memory.residency import RESIDENCY

__all__ = ["names"]

CPU = torch.device("cpu")


class VRAMState(Enum):
    """How much is kept on the device; the engine decides it itself."""

    DISABLED = 0
    NO_VRAM = 1
    LOW_VRAM = 2
    NORMAL_VRAM = 3
    HIGH_VRAM = 4
    SHARED = 5


class CPUState(Enum):
    """What kind of device computes."""

    GPU = 0
    CPU = 1
    MPS = 2


def chosen_device() -> torch.device:
    """Where networks compute: what `--device` says."""
    return RESIDENCY.choices.on


def get_torch_device_name(device: torch.device | str) -> str:
    """The device as people call it."""
    device = torch.device(device)
    return f"cuda:{device.index or 0} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def get_total_memory(device: torch.device | None = None, torch_total_too: bool = False) -> Any:
    """The bytes there are on a device, or in the host."""
    device = device or chosen_device()
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else free_bytes()
    return (total, total) if torch_total_too else total


def cast_to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype, copy: bool = False) -> Tensor:
    """The tensor there, in that type."""
    return tensor.to(device, dtype, copy=copy)


def raise_non_oom(error: Exception) -> None:
    """Raise what is not for want of memory; a caller that can do with less goes on with the rest."""
    if not is_out_of_memory(error):
        raise error


def names() -> dict[str, dict[str, Any]]:
    """The module."""
    kind = chosen_device().type
    state = {"cpu": CPUState.CPU, "mps": CPUState.MPS}.get(kind, CPUState.GPU)

    def on_cpu(*_: Any, **__: Any) -> torch.device:
        return CPU

    def never(*_: Any, **__: Any) -> bool:
        return False

    def nothing(*_: Any, **__: Any) -> None:
        return None

    return {
        "comfy.model_management": {
            "CPUState": CPUState,
            "DISABLE_SMART_MEMORY": False,
            "OOM_EXCEPTION": torch.OutOfMemoryError,
            "VRAMState": VRAMState,
            "XFORMERS_IS_AVAILABLE": False,
            "cast_to": cast_to_device,
            "cast_to_device": cast_to_device,
            "cleanup_models": nothing,
            "cpu_state": state,
            "current_loaded_models": [],
            "device_supports_non_blocking": never,
            "dtype_size": lambda dtype: torch.empty(0, dtype=dtype).element_size(),
            "flash_attention_enabled": never,
            "force_upcast_attention_dtype": lambda *_, **__: None,
            "free_memory": lambda *_, **__: [],
            "get_autocast_device": lambda device: torch.device(device).type,
            "get_torch_device_name": get_torch_device_name,
            "get_total_memory": get_total_memory,
            "in_training": False,
            "intermediate_dtype": lambda *_, **__: torch.float32,
            "is_device_cpu": lambda device: torch.device(device).type == "cpu",
            "is_device_mps": lambda device: torch.device(device).type == "mps",
            "is_directml_enabled": never,
            "is_intel_xpu": never,
            "is_nvidia": lambda: chosen_device().type == "cuda",
            "load_model_gpu": nothing,
            "load_models_gpu": nothing,
            "loaded_models": lambda *_, **__: [],
            "maximum_vram_for_weights": lambda *_, **__: free_bytes(),
            "module_size": lambda module: sum(part.nbytes for part in module.state_dict().values()),
            "pytorch_attention_enabled": lambda *_, **__: True,
            "raise_non_oom": raise_non_oom,
            "sage_attention_enabled": never,
            "should_use_bf16": never,
            "should_use_fp16": never,
            "text_encoder_device": chosen_device,
            "text_encoder_dtype": lambda *_, **__: torch.float32,
            "text_encoder_offload_device": on_cpu,
            "unet_dtype": lambda *_, **__: torch.float32,
            "unet_manual_cast": lambda *_, **__: None,
            "unet_offload_device": on_cpu,
            "unload_all_models": nothing,
            "unload_model_clones": nothing,
            "vae_device": chosen_device,
            "vae_dtype": lambda *_, **__: torch.float32,
            "vae_offload_device": on_cpu,
            "vram_state": VRAMState.NORMAL_VRAM,
            "xformers_enabled": never,
        }
    }
