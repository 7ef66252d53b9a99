"""diffusers' transformer beside ours: the same sizes, precision, inputs and machine, in the same run."""

from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.subjects import large, randomised


def peer(bench: Bench) -> None:
    """One guided forward of Large at 1024, eager in turns with ours, and compiled block by block."""
    try:
        from diffusers import SD3Transformer2DModel
    except ImportError as error:
        bench.say("diffusers", f"cannot be imported here ({error}): not run")
        return
    subject = large(bench)
    shape = subject.shape
    theirs: Any = randomised(
        lambda: SD3Transformer2DModel(  # type: ignore[no-untyped-call]
            num_layers=shape.depth,
            attention_head_dim=64,
            num_attention_heads=shape.heads,
            joint_attention_dim=shape.context_width,
            caption_projection_dim=shape.width,
            pooled_projection_dim=shape.pooled_width,
            in_channels=16,
            out_channels=16,
            pos_embed_max_size=shape.table_side,
            sample_size=128,
            qk_norm="rms_norm",
        ),
        bench.device,
        torch.bfloat16,
    )
    latent, timestep, pooled, context = subject.inputs()
    latent, pooled, context = (tensor.to(torch.bfloat16) for tensor in (latent, pooled, context))

    def forward() -> object:
        return theirs(latent, context, pooled, timestep, return_dict=False)[0]

    def ours() -> object:
        return subject.network(latent, timestep, pooled, context)

    with torch.inference_mode():
        pairs = [(bench.timed(ours, 2), bench.timed(forward, 2)) for _ in range(3)]
        mine, other = (sorted(side)[1] for side in zip(*pairs, strict=True))
        text = f"ours {mine * 1e3:.1f} ms, diffusers {other * 1e3:.1f} ms: {mine / other:.3f}"
        bench.say("Large forward, eager", text, ours_s=mine, theirs_s=other)
        if bench.left() < 50 and not bench.is_dry:
            return
        torch._dynamo.reset()
        for block in theirs.transformer_blocks:
            block.compile(fullgraph=True, backend="eager" if bench.is_dry else "inductor")
        first, took = bench.once(forward), bench.timed(forward, 5)
    bench.say("diffusers, compiled blocks", f"{took * 1e3:.1f} ms (first {first:.0f} s)", theirs_compiled_s=took)
