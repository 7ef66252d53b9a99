"""ControlNets of SD3 and SD3.5 (Zhang 2023, arXiv:2302.05543): a hint becomes residuals for the transformer's blocks.

Two kinds. One is a copy of the transformer's first joint blocks with embedders of its own (diffusers'
`SD3ControlNetModel`). The other, of SD3.5 Large, sees image tokens alone, which the transformer's own patch embedder
makes. Shape letters as in mmdit.py; a hint is a latent [B, 16 + extra, H, W].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sigmagraph.engine.models.arch.mmdit import (
    TIMESTEP_FREQUENCIES,
    Embedder,
    JointBlock,
    JointStem,
    MMDiTShape,
    PatchEmbedder,
    StreamBlock,
    padded,
    timestep_features,
)


@dataclass(frozen=True)
class ControlShape:
    """Every number that a set of ControlNet weights fixes. `of_blocks` are those of its blocks and embedders."""

    of_blocks: MMDiTShape
    hint_channels: int
    is_joint: bool

    @property
    def extra_channels(self) -> int:
        """Channels of a hint beyond a latent's: 1 where the net takes a mask."""
        return self.hint_channels - self.of_blocks.in_channels

    @classmethod
    def from_tensors(cls, shapes: Mapping[str, Sequence[int]]) -> "ControlShape":
        """Read the shape off tensor names and sizes in our layout. Raises `KeyError` with a missing tensor's name."""
        _, hint_channels, patch, _ = shapes["pos_embed_input.proj.weight"]
        if "context_embedder.weight" in shapes:
            return cls(MMDiTShape.from_tensors(with_end(shapes)), hint_channels, is_joint=True)
        width, pooled_width = shapes["y_embedder.mlp.0.weight"]
        blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("stream_blocks.")}
        shape = MMDiTShape(max(blocks) + 1, width, pooled_width, 1, 1, patch=patch, has_qk_norm=False)
        return cls(shape, hint_channels, is_joint=False)


def with_end(shapes: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    """A joint ControlNet's shapes with the final layer of a transformer, which it does not have."""
    _, channels, patch, _ = shapes["x_embedder.proj.weight"]
    return {**shapes, "final_layer.linear.weight": (patch**2 * channels,)}


def hint_embedder(shape: ControlShape) -> PatchEmbedder:
    """Patches of the hint, which are added to the picture's."""
    return PatchEmbedder(replace(shape.of_blocks, in_channels=shape.hint_channels))


def projections(shape: ControlShape) -> nn.ModuleList:
    """What makes a residual of the tokens behind each block; all zeros before training."""
    width = shape.of_blocks.width
    return nn.ModuleList(nn.Linear(width, width) for _ in range(shape.of_blocks.depth))


class JointControlNet(JointStem):
    """Joint blocks with embedders of their own; every block is whole, the last one too."""

    def __init__(self, shape: ControlShape) -> None:
        super().__init__(shape.of_blocks)
        self.joint_blocks = nn.ModuleList(
            JointBlock(shape.of_blocks, i, is_last=False) for i in range(shape.of_blocks.depth)
        )
        self.pos_embed_input, self.controlnet_blocks = hint_embedder(shape), projections(shape)

    def forward(self, x: Tensor, hint: Tensor, timestep: Tensor, pooled: Tensor, context: Tensor) -> list[Tensor]:
        """The residual of each block, [B, N, D]."""
        x, hint = (padded(latent, self.shape.patch).to(self.dtype) for latent in (x, hint))
        rows, columns = (side // self.shape.patch for side in x.shape[-2:])
        image = self.x_embedder(x) + self.positions(rows, columns).to(self.dtype) + self.pos_embed_input(hint)
        condition, context = self.condition(timestep, pooled), self.context_embedder(context.to(self.dtype))
        residuals = []
        for block, projection in zip(self.joint_blocks, self.controlnet_blocks, strict=True):
            image, context = block(image, context, condition)
            residuals.append(projection(image))
        return residuals


class StreamControlNet(nn.Module):
    """Blocks of image tokens alone, of which the transformer makes the first: SD3.5 Large's blur, canny and depth."""

    def __init__(self, shape: ControlShape) -> None:
        super().__init__()
        self.shape = shape.of_blocks
        self.pos_embed_input, self.controlnet_blocks = hint_embedder(shape), projections(shape)
        self.t_embedder = Embedder(2 * TIMESTEP_FREQUENCIES, self.shape.width)
        self.y_embedder = Embedder(self.shape.pooled_width, self.shape.width)
        self.stream_blocks = nn.ModuleList(StreamBlock(self.shape) for _ in range(self.shape.depth))

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.pos_embed_input.proj.weight.dtype

    def forward(self, tokens: Tensor, hint: Tensor, timestep: Tensor, pooled: Tensor) -> list[Tensor]:
        """The residual of each block, [B, N, D], from tokens [B, N, D] with their positions in them."""
        image = tokens.to(self.dtype) + self.pos_embed_input(padded(hint, self.shape.patch).to(self.dtype))
        features = timestep_features(timestep).to(self.dtype)
        condition = self.t_embedder(features) + self.y_embedder(pooled.to(self.dtype))
        residuals = []
        for block, projection in zip(self.stream_blocks, self.controlnet_blocks, strict=True):
            image = block(image, condition)
            residuals.append(projection(image))
        return residuals
