"""Which device computes, in which precision, and how much may be allocated on it. Nothing is looked up at import."""

import platform
from dataclasses import dataclass
from functools import cache

import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.host import free_bytes

MPS_BF16 = (14, 0)  # the first macOS whose kernels multiply bfloat16
UNLIMITED = 2**60  # what a device without memory of its own has


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a network's weights live and the precision they are kept and multiplied in."""

    device: torch.device
    dtype: torch.dtype


def devices() -> list[torch.device]:
    """Every device of this machine, the best first: CUDA's, Intel's, Apple's, the CPU."""
    found = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    found += [torch.device("xpu", index) for index in range(torch.xpu.device_count())]
    found += [torch.device("mps")] if torch.backends.mps.is_available() else []
    return [*found, torch.device("cpu")]


def named_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `xpu`, `mps`. Raises `BadValue`, saying which there are."""
    there = devices()
    for device in there:
        if name in ("auto", str(device), device.type):
            return device
    raise BadValue("--device", name, "auto or one of " + ", ".join(map(str, there)))


def tabulates(device: torch.device) -> bool:
    """Whether what depends on the text and the noise level alone is made once a run: on all but a CPU."""
    return device.type != "cpu"


def capability(device: torch.device) -> tuple[int, int]:
    """CUDA's compute capability; that of a card which is not there is taken for a recent one's."""
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else (9, 0)


def multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the device's hardware multiplies matrices in this precision."""
    if dtype == torch.float32:
        return True
    if device.type == "cpu":
        return dtype == torch.bfloat16 and _has_bf16_processor()
    if device.type == "cuda":
        least = {torch.float16: (7, 0), torch.bfloat16: (8, 0)}.get(dtype, (8, 9))
        return capability(device) >= least
    if device.type == "mps":
        return dtype == torch.float16 or (dtype == torch.bfloat16 and torch.backends.mps.is_macos_or_newer(*MPS_BF16))
    if device.type == "xpu":
        return dtype == torch.float16 or (dtype == torch.bfloat16 and torch.xpu.is_bf16_supported())
    return dtype in (torch.float16, torch.bfloat16)


def holds(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this kind can lie there, or grow there: Apple's devices have neither float8 nor float64."""
    if device.type == "mps":
        return dtype.itemsize > 1 and dtype != torch.float64 if dtype.is_floating_point else True
    return device.type != "xpu" or dtype != torch.float64


@cache
def _has_bf16_processor() -> bool:
    """AVX-512 with bfloat16, AMX, or an Arm processor that torch's own kernels take for one."""
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if any(ask is not None and ask() for ask in asked):
        return True
    is_arm = platform.machine().lower() in ("aarch64", "arm64")
    return is_arm and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compute_dtype(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """What the device multiplies in for weights stored so: the same, as far as its hardware does.

    Without it, 16-bit files compute in the other 16-bit precision on a card, in float32 on a CPU; 8-bit files as
    bfloat16 ones, on a CPU in float32.
    """
    if stored == torch.float32 or (multiplies(device, stored) and stored.itemsize == 2):
        return stored
    if device.type == "cpu":
        return torch.float32
    return next((dtype for dtype in (torch.bfloat16, torch.float16) if multiplies(device, dtype)), torch.float32)


def available_bytes(device: torch.device) -> int:
    """What may still be allocated on `device`. What torch holds there and nobody uses is as good as free."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type == "xpu":
        unused = torch.xpu.memory_reserved(device) - torch.xpu.memory_allocated(device)
        return torch.xpu.mem_get_info(device)[0] + unused
    if device.type == "mps":  # of the host's memory, as much as Metal recommends
        return min(free_bytes(), torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return UNLIMITED if device.type == "meta" else free_bytes()


def give_back(kind: str) -> None:
    """Return what torch holds of devices of this kind and nobody uses."""
    empty = {"cuda": torch.cuda.empty_cache, "xpu": torch.xpu.empty_cache, "mps": torch.mps.empty_cache}
    if kind in empty:
        empty[kind]()
