"""Random ControlNets and transformers made by diffusers, and their prediction as diffusers' pipeline forms it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import SD3ControlNetModel, SD3Transformer2DModel
from torch import Tensor, nn

WIDTH, CONTEXT, POOLED, SIDE = 128, 80, 48, 24
SIZES: dict[str, Any] = {
    "sample_size": 32,
    "attention_head_dim": 64,
    "num_attention_heads": WIDTH // 64,
    "caption_projection_dim": WIDTH,
    "pooled_projection_dim": POOLED,
    "out_channels": 16,
    "pos_embed_max_size": SIDE,
}


def randomised(module: nn.Module, seed: int) -> Any:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    return module.eval()


def transformer(depth: int = 4, seed: int = 0, **more: Any) -> Any:
    return randomised(SD3Transformer2DModel(num_layers=depth, joint_attention_dim=CONTEXT, **(SIZES | more)), seed)


def joint(layers: int, seed: int = 1, **more: Any) -> Any:
    sizes = {"joint_attention_dim": CONTEXT} | SIZES | more
    return randomised(SD3ControlNetModel(num_layers=layers, **sizes), seed)


def stream(layers: int, seed: int = 2, **more: Any) -> Any:
    """SD3.5 Large's kind."""
    sizes = {"joint_attention_dim": None, "use_pos_embed": False} | SIZES | more
    return randomised(SD3ControlNetModel(num_layers=layers, **sizes), seed)


def saved(module: Any, folder: Path) -> Path:
    module.save_pretrained(folder)
    return folder


def original_layout(net: Any) -> dict[str, Tensor]:
    """The tensors of a net of SD3.5 Large's kind as Stability's files name them, with what is unused in them."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        for theirs, original in (
            ("norm1.linear", "adaLN_modulation.1"),
            ("attn.to_out.0", "attn.proj"),
            ("ff.net.0.proj", "mlp.fc1"),
            ("ff.net.2", "mlp.fc2"),
        ):
            name = name.replace(theirs, original)
        tensors[name] = tensor
    for name in [name for name in tensors if ".to_q." in name]:
        parts = [tensors.pop(name.replace("to_q", f"to_{letter}")) for letter in "qkv"]
        tensors[name.replace("to_q", "qkv")] = torch.cat(parts)
    return {**tensors, "context_embedder.weight": torch.randn(WIDTH, CONTEXT)}


def residuals(
    net: Any, main: Any, x: Tensor, hint: Tensor, timestep: Tensor, text: Sequence[Tensor]
) -> Sequence[Tensor]:
    """What the net gives for texts (context, pooled)."""
    context, pooled = text
    is_stream = net.context_embedder is None
    given = main.pos_embed(x) if is_stream else x
    pooled = torch.zeros_like(pooled) if not is_stream and net.config.force_zeros_for_pooled_projection else pooled
    made: Sequence[Tensor] = net(
        given,
        controlnet_cond=hint,
        encoder_hidden_states=None if is_stream else context,
        pooled_projections=pooled,
        timestep=timestep,
        return_dict=False,
    )[0]
    return made


def velocity(
    main: Any,
    x: Tensor,
    timestep: Tensor,
    text: Sequence[Tensor],
    control: Sequence[Tensor],
    last: Tensor | None = None,
) -> Tensor:
    """The transformer's answer with residuals; `last` is one for the last block, which diffusers leaves out."""
    hook = main.transformer_blocks[-1].register_forward_hook(
        lambda module, given, result: result if last is None else (result[0], result[1] + last)
    )
    context, pooled = text
    try:
        answer: Tensor = main(
            x,
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=timestep,
            block_controlnet_hidden_states=list(control) or None,
        ).sample
    finally:
        hook.remove()
    return answer
