"""What the machine can do at most: matrix products, memory, the bus, and attention by backend."""

import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.bench import Bench

BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def machine(bench: Bench) -> None:
    """Versions; the matrix peak in bf16 and fp8; memory bandwidth; host to device, pageable and pinned."""
    name = torch.cuda.get_device_name(bench.device) if bench.has_cuda else platform.processor() or "CPU"
    capability = ".".join(map(str, torch.cuda.get_device_capability(bench.device))) if bench.has_cuda else "none"
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    bench.say("device", f"{name}, capability {capability}, {versions}, Python {platform.python_version()}")
    _products(bench, 256 if bench.is_dry else 8192)
    _bandwidths(bench)


def _products(bench: Bench, side: int) -> None:
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * side**3 / bench.timed(lambda: a @ b, 10, 3)
    bench.say("bf16 matrix product", f"{rate / 1e12:.0f} TFLOP/s at {side}", bf16_flops=rate)
    one = torch.ones((), device=bench.device)
    a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()

    def product() -> object:
        return torch._scaled_mm(a8, b8, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)

    rate = 2 * side**3 / bench.timed(product, 10, 3)
    bench.say("fp8 matrix product", f"{rate / 1e12:.0f} TFLOP/s at {side}", fp8_flops=rate)


def _bandwidths(bench: Bench) -> None:
    count = 1 << (18 if bench.is_dry else 29)
    source = torch.zeros(count, device=bench.device)
    target = torch.empty_like(source)
    rate = 2 * source.nbytes / bench.timed(lambda: target.copy_(source), 5, 2)
    bench.say("device memory", f"{rate / 1e12:.2f} TB/s read and written", memory_bytes_s=rate)
    host = torch.zeros(count // 4)
    target = target[: count // 4]
    rate = host.nbytes / bench.timed(lambda: target.copy_(host), 3)
    bench.say("host to device, pageable", f"{rate / 1e9:.1f} GB/s", pageable_bytes_s=rate)
    if bench.has_cuda:
        pinned = host.pin_memory()
        rate = host.nbytes / bench.timed(lambda: target.copy_(pinned, non_blocking=True), 5)
        bench.say("host to device, pinned", f"{rate / 1e9:.1f} GB/s", pinned_bytes_s=rate)
        rate = host.nbytes / bench.timed(lambda: pinned.copy_(target, non_blocking=True), 5)
        bench.say("device to host, pinned", f"{rate / 1e9:.1f} GB/s", back_bytes_s=rate)


def attention(bench: Bench) -> None:
    """Attention of Large at 1024 (a guided step: batch 2, 38 heads, 4250 tokens) by backend."""
    batch, tokens, heads = (2, 100, 2) if bench.is_dry else (2, 4250, 38)
    sizes, dtype = (batch, tokens, heads, 64), torch.bfloat16
    q, k, v = (torch.randn(sizes, device=bench.device, dtype=dtype).transpose(1, 2) for _ in range(3))
    count = 4 * tokens**2 * heads * 64 * batch

    def call() -> object:
        return F.scaled_dot_product_attention(q, k, v)

    rate = count / bench.timed(call, 5, 2)
    bench.say("as torch chooses", f"{rate / 1e12:.0f} TFLOP/s", default_flops=rate)
    for backend in BACKENDS:
        _backend(bench, backend, call, count)
    _registered(bench, call, count)


def _backend(bench: Bench, backend: SDPBackend, call: Callable[[], object], count: int) -> None:
    name = backend.name.lower()
    try:
        with sdpa_kernel(backend):
            rate = count / bench.timed(call, 5, 2)
    except RuntimeError as error:
        bench.say(name, f"not here: {str(error).splitlines()[0][:90]}")
    else:
        bench.say(name, f"{rate / 1e12:.0f} TFLOP/s", **{f"{name}_flops": rate})


def _registered(bench: Bench, call: Callable[[], object], count: int) -> None:
    """What torch's registry offers in place of its own flash attention (FA3, FA4), where it is installed."""
    try:
        from torch.nn.attention import (
            activate_flash_attention_impl,
            list_flash_attention_impls,
            restore_flash_attention_impl,
        )
    except ImportError:
        bench.say("registry", "this torch has none")
        return
    for name in list_flash_attention_impls():
        try:
            activate_flash_attention_impl(name)
        except (RuntimeError, ImportError, ValueError) as error:
            bench.say(f"registry {name}", f"not here: {str(error).splitlines()[0][:90]}")
            continue
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            rate = count / bench.timed(call, 5, 2)
        restore_flash_attention_impl()
        bench.say(f"registry {name}", f"{rate / 1e12:.0f} TFLOP/s", **{f"{name}_flops": rate})
