"""The other networks of a picture: the autoencoder and T5-XXL."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.subjects import forget, randomised
from sigmagraph.engine.models.arch import Autoencoder, VaeShape, strips
from sigmagraph.engine.models.arch.strips import Keeping

FORMATS = {"as stored": torch.contiguous_format, "channels_last": torch.channels_last}


def vae(bench: Bench) -> None:
    """Decoding at 1024 and 2048 by precision and memory format: seconds and what it adds to the weights."""
    shape = VaeShape((32, 32, 32, 64)) if bench.is_dry else VaeShape()
    for dtype in (torch.bfloat16,) if bench.is_dry else (torch.bfloat16, torch.float16, torch.float32):
        network = randomised(lambda: Autoencoder(shape), bench.device, dtype)
        for pixels in (64, 128) if bench.is_dry else (1024, 2048):
            if dtype == torch.float32 and pixels > 1024:
                continue
            found = [_decoded(bench, network, pixels, dtype, layout) for layout in FORMATS.values()]
            text = "; ".join(
                f"{name} {s * 1e3:.0f} ms, {gb:.2f} GB" for name, (s, gb) in zip(FORMATS, found, strict=True)
            )
            name = f"{pixels}_{str(dtype).removeprefix('torch.')}"
            bench.say(f"decode {name.replace('_', ', ')}", text, **{name: found[0][0], f"{name}_last": found[1][0]})


def vae_strips(bench: Bench) -> None:
    """Decoding in strips, where a picture does not fit whole: seconds and what it adds, bfloat16."""
    shape = VaeShape((32, 32, 32, 64)) if bench.is_dry else VaeShape()
    network = randomised(lambda: Autoencoder(shape), bench.device, torch.bfloat16)
    for pixels in (128,) if bench.is_dry else (1024, 2048):
        latent = torch.randn(1, 16, pixels // 8, pixels // 8, device=bench.device, dtype=torch.bfloat16)
        for keeping in Keeping:
            call = partial(strips.decoded, network, latent, keeping)
            took, peak = bench.timed(call, 2), bench.peak_gb(call)
            bench.say(f"decode {pixels}, {keeping.value}", f"{took * 1e3:.0f} ms, {peak:.2f} GB", seconds=took, gb=peak)


def _decoded(
    bench: Bench, network: Autoencoder, pixels: int, dtype: torch.dtype, layout: torch.memory_format
) -> tuple[float, float]:
    network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub knows it for 4-D tensors alone
    latent = torch.randn(1, 16, pixels // 8, pixels // 8, device=bench.device, dtype=dtype)
    latent = latent.contiguous(memory_format=layout)
    with torch.inference_mode():
        return bench.timed(lambda: network.decode(latent), 3), bench.peak_gb(lambda: network.decode(latent))


def text(bench: Bench) -> None:
    """T5-XXL on 77 tokens: float32, float32 with TF32 products, bfloat16."""
    from transformers import T5Config, T5EncoderModel

    forget(bench)
    width, inner, layers = (64, 128, 2) if bench.is_dry else (4096, 10240, 24)
    config = T5Config(
        vocab_size=32128,
        d_model=width,
        d_kv=64,
        d_ff=inner,
        num_layers=layers,
        num_heads=width // 64,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    ids = torch.randint(5, 32000, (1, 77), device=bench.device)
    for dtype in (torch.float32, torch.bfloat16):
        _encoded(bench, lambda: T5EncoderModel(config), ids, dtype)
        bench.tidy()


def _encoded(bench: Bench, build: Callable[[], Any], ids: Tensor, dtype: torch.dtype) -> None:
    network = randomised(build, bench.device, dtype)
    held = sum(parameter.nbytes for parameter in network.parameters()) / 1e9
    name = str(dtype).removeprefix("torch.")

    @torch.inference_mode()
    def encode() -> object:
        return network(ids)

    took = bench.timed(encode)
    bench.say(f"T5-XXL {name}", f"{took * 1e3:.0f} ms for 77 tokens, {held:.1f} GB", **{f"{name}_s": took})
    if dtype == torch.float32:
        torch.backends.cuda.matmul.allow_tf32 = True
        took = bench.timed(encode)
        torch.backends.cuda.matmul.allow_tf32 = False
        bench.say("T5-XXL float32 by TF32", f"{took * 1e3:.0f} ms", tf32_s=took)
