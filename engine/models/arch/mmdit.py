"""MMDiT, the two-stream diffusion transformer of SD3 and SD3.5 (Esser 2024, arXiv:2403.03206, figure 2).

Parameter names are those of the published single-file checkpoints, so a state dict fits as it is. Knows nothing of
files, sigmas or guidance: it maps (latent, timestep, text) to a velocity.

Shape letters: B batch, H W latent sides, h w token sides, L text tokens, N image tokens, D width, P pooled width.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sigmagraph.engine.models.arch.stack import BlockStack

HEAD_WIDTH = 64
TIMESTEP_FREQUENCIES = 128
NORM_EPS = 1e-6
POSITION_BASE = 10_000


@dataclass(frozen=True)
class MMDiTShape:
    """Every number that a set of MMDiT weights fixes. Widths in channels, `table_side` in tokens; 0: no table."""

    depth: int
    width: int
    pooled_width: int
    context_width: int
    table_side: int
    in_channels: int = 16
    out_channels: int = 16
    patch: int = 2
    has_qk_norm: bool = True
    dual_attention_blocks: frozenset[int] = frozenset()

    @property
    def heads(self) -> int:
        """Attention heads: the head width is 64 throughout the family."""
        return self.width // HEAD_WIDTH

    @classmethod
    def from_tensors(cls, shapes: Mapping[str, Sequence[int]]) -> "MMDiTShape":
        """Read the shape off tensor names and sizes in the original layout, without prefix.

        Raises `KeyError` with the tensor's name where one that decides is missing.
        """
        width, in_channels, patch, _ = shapes["x_embedder.proj.weight"]
        blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("joint_blocks.")}
        dual = {i for i in blocks if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes}
        return cls(
            depth=max(blocks) + 1,
            width=width,
            pooled_width=shapes["y_embedder.mlp.0.weight"][1],
            context_width=shapes["context_embedder.weight"][1],
            table_side=math.isqrt(shapes["pos_embed"][1]) if "pos_embed" in shapes else 0,
            in_channels=in_channels,
            out_channels=shapes["final_layer.linear.weight"][0] // patch**2,
            patch=patch,
            has_qk_norm="joint_blocks.0.context_block.attn.ln_q.weight" in shapes,
            dual_attention_blocks=frozenset(dual),
        )


def timestep_features(timestep: Tensor) -> Tensor:
    """[B] -> [B, 256]: cosines, then sines, of the timestep at 128 frequencies, in float32."""
    steps = torch.arange(TIMESTEP_FREQUENCIES, dtype=torch.float32, device=timestep.device)
    angles = timestep.float()[:, None] * torch.exp(steps * (-math.log(10_000) / TIMESTEP_FREQUENCIES))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then scale and shift: tokens [B, N, D], shift and scale [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(tokens, tokens.shape[-1:], eps=NORM_EPS), 1 + scale)


class Embedder(nn.Module):
    """Two linears with SiLU between them; `mlp.0` and `mlp.2` in the weight files."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.mlp(features)
        return embedded


class PatchEmbedder(nn.Module):
    """Latent [B, C, H, W] -> tokens [B, N, D], row by row."""

    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(shape.in_channels, shape.width, shape.patch, stride=shape.patch)

    def forward(self, latent: Tensor) -> Tensor:
        tokens: Tensor = self.proj(latent)
        return tokens.flatten(2).transpose(1, 2).contiguous()  # every norm behind would copy a transposed layout


class Attention(nn.Module):
    """The projections around attention, for one stream; `attend` does the mixing."""

    def __init__(self, shape: MMDiTShape, *, has_output: bool = True) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        if has_output:
            self.proj = nn.Linear(shape.width, shape.width)
        self.has_qk_norm = shape.has_qk_norm
        if shape.has_qk_norm:
            self.ln_q = nn.RMSNorm(HEAD_WIDTH, eps=NORM_EPS)
            self.ln_k = nn.RMSNorm(HEAD_WIDTH, eps=NORM_EPS)

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] -> q, k, v, each [B, N, heads, 64]."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, HEAD_WIDTH)).unbind(2)
        if self.has_qk_norm:
            q, k = self.ln_q(q), self.ln_k(k)
        return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain softmax attention, scale 1/8: [B, N, heads, 64] each -> [B, N, D]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if torch.is_grad_enabled() and q.device.type == "cpu":
        # On a CPU the fused kernel's backward pass takes a third of a training step; two plain products do not.
        weights = (q * HEAD_WIDTH**-0.5 @ k.transpose(-1, -2)).softmax(dim=-1).to(v.dtype)
        mixed: Tensor = weights @ v
        return mixed.transpose(1, 2).flatten(2)
    if (
        q.device.type == "cpu"
    ):  # its kernel reads keys and values once for every block of queries: 6 to 10 % at 4,000 tokens
        k, v = k.contiguous(), v.contiguous()
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k and v of all tokens, text first, each [B, N, heads, 64] -> [B, N, D]: `attend`, or what takes its place."""


class AttentionChange(Protocol):
    """Takes the place of `attend` in some blocks; the image tokens, which are the last ones, lie on a grid."""

    @property
    def blocks(self) -> Collection[int]:
        """Numbers of the blocks."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the tokens of q get, [B, N, D]; `grid` is rows and columns."""


def _joined(context: Tensor, image: Tensor) -> Tensor:
    """Two streams behind each other, [B, N, heads, 64]; on a CPU each head's tokens lie together."""
    if image.device.type == "cpu":
        return torch.cat((context.transpose(1, 2), image.transpose(1, 2)), dim=2).transpose(1, 2)
    return torch.cat((context, image), dim=1)


class Mlp(nn.Module):
    """Linear to 4x, tanh-GELU, linear back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(tokens), approximate="tanh"))
        return result


class StreamBlock(nn.Module):
    """One stream's half of a joint block.

    `is_last_context` halves only lend q, k and v: they have no output projection, no MLP and two modulation parts.
    """

    def __init__(self, shape: MMDiTShape, *, has_dual_attention: bool = False, is_last_context: bool = False) -> None:
        super().__init__()
        self.parts = 2 if is_last_context else 9 if has_dual_attention else 6
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(shape.width, self.parts * shape.width))
        self.attn = Attention(shape, has_output=not is_last_context)
        if has_dual_attention:
            self.attn2 = Attention(shape)
        if not is_last_context:
            self.mlp = Mlp(shape.width)

    def modulation(self, condition: Tensor) -> tuple[Tensor, ...]:
        """[B, D] -> shift, scale(, gate, shift, scale, gate of the MLP(, shift, scale, gate of the dual attention))."""
        parts: tuple[Tensor, ...] = self.adaLN_modulation(condition).unsqueeze(1).chunk(self.parts, dim=-1)
        return parts

    def add_attention(self, tokens: Tensor, mixed: Tensor, parts: tuple[Tensor, ...], mix: Mix = attend) -> Tensor:
        """Tokens plus the attention result, and plus the dual attention of this stream alone where there is one."""
        attended = torch.addcmul(tokens, parts[2], self.attn.proj(mixed))
        if self.parts == 9:
            shift_dual, scale_dual, gate_dual = parts[6:]
            own = mix(*self.attn2.project(modulated(tokens, shift_dual, scale_dual)))
            attended = torch.addcmul(attended, gate_dual, self.attn2.proj(own))
        return attended

    def add_mlp(self, tokens: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        """Tokens plus the MLP's result."""
        shift, scale, gate = parts[3:6]
        return torch.addcmul(tokens, gate, self.mlp(modulated(tokens, shift, scale)))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """The stream alone, which attends to itself: tokens [B, N, D], condition [B, D]."""
        parts = self.modulation(condition)
        mixed = attend(*self.attn.project(modulated(tokens, parts[0], parts[1])))
        return self.add_mlp(self.add_attention(tokens, mixed, parts), parts)


class JointBlock(nn.Module):
    """Text and image tokens attend to each other; each stream has its own weights."""

    def __init__(self, shape: MMDiTShape, index: int, *, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        self.context_block = StreamBlock(shape, is_last_context=self.is_last)
        self.x_block = StreamBlock(shape, has_dual_attention=index in shape.dual_attention_blocks)

    def forward(
        self, image: Tensor, context: Tensor, condition: Tensor, mix: Mix = attend, *, only_reads: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Image [B, N, D], context [B, L, D], condition [B, D]; the last block returns its context untouched.

        In place of the condition, what would be made of it: [parts of both streams, B, D], the image's first. With
        `only_reads` the image tokens come back as attention would read them: normalised, scaled and shifted.
        """
        if condition.ndim == 2:
            image_parts, context_parts = self.x_block.modulation(condition), self.context_block.modulation(condition)
        else:
            parts = condition.unsqueeze(2).unbind(0)
            image_parts, context_parts = parts[: self.x_block.parts], parts[self.x_block.parts :]
        if only_reads:
            return modulated(image, image_parts[0], image_parts[1]), context
        image, context = self.attended(image, context, image_parts, context_parts, mix)
        if not self.is_last:
            context = self.context_block.add_mlp(context, context_parts)
        return self.x_block.add_mlp(image, image_parts), context

    def attended(
        self,
        image: Tensor,
        context: Tensor,
        image_parts: tuple[Tensor, ...],
        context_parts: tuple[Tensor, ...],
        mix: Mix,
    ) -> tuple[Tensor, Tensor]:
        """Both streams with the attention's result added. A method so that the result is gone before the MLPs."""
        mixed = mix(*self.queried(image, context, image_parts, context_parts))
        mixed_context, mixed_image = mixed.tensor_split([mixed.shape[1] - image.shape[1]], dim=1)
        if not self.is_last:
            context = self.context_block.add_attention(context, mixed_context, context_parts)
        return self.x_block.add_attention(image, mixed_image, image_parts, mix), context

    def queried(
        self, image: Tensor, context: Tensor, image_parts: tuple[Tensor, ...], context_parts: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of both streams, context first: [B, L + N, heads, 64]. A method so that their parts die with it.

        The last block asks for the image alone, q [B, N, heads, 64]: nobody reads what its context would become.
        """
        of_context = self.context_block.attn.project(modulated(context, context_parts[0], context_parts[1]))
        of_image = self.x_block.attn.project(modulated(image, image_parts[0], image_parts[1]))
        q, k, v = (_joined(*pair) for pair in zip(of_context, of_image, strict=True))
        return of_image[0] if self.is_last else q, k, v


class FinalLayer(nn.Module):
    """Modulated norm and the projection to patches."""

    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(shape.width, 2 * shape.width))
        self.linear = nn.Linear(shape.width, shape.patch**2 * shape.out_channels)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """The condition [B, D], or what would be made of it: [2, B, D]."""
        if condition.ndim == 2:
            shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=-1)
        else:
            shift, scale = condition.unsqueeze(2).unbind(0)
        patches: Tensor = self.linear(modulated(tokens, shift, scale))
        return patches


def stretched_positions(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of places on a line, [1, rows * columns, D], in place of a position table.

    The shorter side runs from 0 to 15, the longer one beyond both ends in proportion. The first half of the channels
    tells the column, the second the row. So ComfyUI has it, for a transformer without a table and for SD3.5 Large's
    ControlNets. Made on the device, in float64 on a CPU.
    """
    on = torch.device("cpu") if device is None else device
    precise = torch.float64 if on.type == "cpu" else torch.float32
    rates = POSITION_BASE ** -(torch.arange(width // 4, dtype=precise, device=on) / (width / 4))

    def along(count: int) -> Tensor:
        reach = 7.5 * count / min(rows, columns)
        angles = torch.linspace(7.5 - reach, 7.5 + reach, count, dtype=precise, device=on)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1).float()

    of_columns = along(columns)[None, :].expand(rows, -1, -1)
    of_rows = along(rows)[:, None].expand(-1, columns, -1)
    return torch.cat([of_columns, of_rows], dim=2).flatten(0, 1)[None]


class JointStem(nn.Module):
    """What stands in front of joint blocks: embedders of patches, positions, timestep, pooled text and text tokens."""

    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__()
        self.shape = shape
        if shape.table_side:
            self.pos_embed = nn.Parameter(torch.zeros(1, shape.table_side**2, shape.width), requires_grad=False)
        self.x_embedder = PatchEmbedder(shape)
        self.t_embedder = Embedder(2 * TIMESTEP_FREQUENCIES, shape.width)
        self.y_embedder = Embedder(shape.pooled_width, shape.width)
        self.context_embedder = nn.Linear(shape.context_width, shape.width)

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.x_embedder.proj.weight.dtype

    def positions(self, rows: int, columns: int) -> Tensor:
        """The centre of the position table: [1, rows * columns, D]. Raises `ValueError` beyond the table.

        Without one, ComfyUI's stretched positions, for pictures of any size.
        """
        side = self.shape.table_side
        if not side:
            return stretched_positions(rows, columns, self.shape.width, self.x_embedder.proj.weight.device)
        if rows > side or columns > side:
            raise ValueError(f"{rows} x {columns} tokens do not fit the position table of {side} x {side}")
        top, left = (side - rows) // 2, (side - columns) // 2
        table: Tensor = self.pos_embed.unflatten(1, (side, side))
        return table[:, top : top + rows, left : left + columns].flatten(1, 2)

    def condition(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        """Timestep [B] and pooled text [B, P] -> [B, D], which modulates every block."""
        features = timestep_features(timestep).to(self.dtype)
        condition: Tensor = self.t_embedder(features) + self.y_embedder(pooled.to(self.dtype))
        return condition


class Beforehand(NamedTuple):
    """What a forward can be told that was made before it: of the condition and of the text.

    `table` [K, B, D]: every modulation, in the order of `MMDiT.modulations`; `tokens` [B, L, D]: the projected context.
    """

    table: Tensor
    tokens: Tensor


class TextAt(NamedTuple):
    """One text at one noise level: pooled [1 or B, P] and context [1 or B, L, C] on the device, for `rows` rows."""

    timestep: float
    pooled: Tensor
    context: Tensor
    rows: int


class TellsBeforehand(Protocol):
    """Who makes, once for a whole run, what a forward is told."""

    def told(self, network: "MMDiT", asked: Sequence[TextAt], beside: Sequence[TextAt] = ()) -> Beforehand:
        """What is to be told for these rows, one text after another; `beside` are asked about next."""


class AnswersForBlocks(Protocol):
    """Who lets the blocks of a forward run, or answers in their place."""

    def output(self, stack: BlockStack) -> Tensor:
        """The velocity, padding included."""


BlockCall = Callable[..., tuple[Tensor, Tensor]]
BlockChange = Callable[[BlockCall], BlockCall]  # what is called in its place, and may call it


def call_block(
    block: JointBlock, image: Tensor, context: Tensor, condition: Tensor, mix: Mix = attend
) -> tuple[Tensor, Tensor]:
    """A block's forward, hooks included."""
    result: tuple[Tensor, Tensor] = block(image, context, condition, mix)
    return result


class MMDiT(JointStem):
    """The whole transformer: latent [B, 16, H, W], timestep [B] (1000 x sigma), pooled [B, P], context [B, L, C]."""

    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__(shape)
        self.joint_blocks = nn.ModuleList(
            JointBlock(shape, i, is_last=i == shape.depth - 1) for i in range(shape.depth)
        )
        self.final_layer = FinalLayer(shape)
        self.call_block: BlockCall = call_block  # a compiled one may take its place
        self.tables: TellsBeforehand | None = None  # on a CPU every forward makes its own
        self.captured: Callable[..., Tensor] | None = None  # replays small forwards on a card
        self.trains = False  # whether its forwards are to have gradients

    @property
    def modulations(self) -> Iterator[tuple[str, nn.Sequential, int]]:
        """Name, module and number of parts of everything that is made of the condition, in the order of a table."""
        for i, block in enumerate(self.joint_blocks):
            for name in ("x_block", "context_block"):
                stream: StreamBlock = block.get_submodule(name)  # type: ignore[assignment]  # a JointBlock's
                yield f"joint_blocks.{i}.{name}.adaLN_modulation", stream.adaLN_modulation, stream.parts
        yield "final_layer.adaLN_modulation", self.final_layer.adaLN_modulation, 2

    def _cut(self, table: Tensor) -> Sequence[Tensor]:
        """A table's parts for every block and for the final layer."""
        parts = [parts for _, _, parts in self.modulations]
        sizes = [image + context for image, context in zip(parts[:-1:2], parts[1::2], strict=True)]
        cut: tuple[Tensor, ...] = table.split([*sizes, parts[-1]])
        return cut

    def _calls(
        self, attention: AttentionChange | None, changed: Mapping[int, BlockChange] | None, grid: tuple[int, int]
    ) -> list[BlockCall]:
        """How blocks are called: with changed attention as they are, since that is no part of a compiled one."""
        calls = [self.call_block] * self.shape.depth
        if attention is not None:
            for i in attention.blocks:
                calls[i] = partial(call_block, mix=partial(attention.mix, grid=grid))
        return [changed[i](call) if changed and i in changed else call for i, call in enumerate(calls)]

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        pooled: Tensor,
        context: Tensor,
        *,
        skip_layers: Collection[int] = (),
        control: Sequence[Sequence[Tensor]] = (),
        beforehand: Beforehand | None = None,
        attention: AttentionChange | None = None,
        blocks: Mapping[int, BlockChange] | None = None,
        cached: AnswersForBlocks | None = None,
    ) -> Tensor:
        """The velocity, [B, 16, H, W]. With `beforehand`, timestep, pooled and context are not looked at.

        `skip_layers`: blocks replaced by the identity. `attention` is changed in its blocks, and `blocks` are
        called in other ways. `control`: for each block, from the first on, the residuals [B, N, D] that are added to
        the image tokens after it. `cached` decides which rows' blocks run at all. Odd sides are padded circularly and
        cropped again.
        """
        height, width = x.shape[-2:]
        patch = self.shape.patch
        x = padded(x, patch)
        rows, columns = x.shape[-2] // patch, x.shape[-1] // patch
        image = self.x_embedder(x.to(self.dtype)) + self.positions(rows, columns).to(self.dtype)
        conditions: Sequence[Tensor]
        if beforehand is None:
            conditions = [self.condition(timestep, pooled)] * (self.shape.depth + 1)
            context = self.context_embedder(context.to(self.dtype))
        else:
            conditions, context = self._cut(beforehand.table), beforehand.tokens
        calls = self._calls(attention, blocks, (rows, columns))
        if cached is not None:
            stack = BlockStack(self, (image, context), conditions, skip_layers, control, (rows, columns), calls)
            return cached.output(stack)[..., :height, :width]
        for i, block in enumerate(self.joint_blocks):
            if i not in skip_layers:
                image, context = calls[i](block, image, context, conditions[i])
            for residual in control[i] if i < len(control) else ():
                image = image + residual.to(image.dtype)
        return self.leave(image, conditions[-1], (rows, columns))[..., :height, :width]

    def leave(self, image: Tensor, condition: Tensor, grid: tuple[int, int]) -> Tensor:
        """Image tokens behind the last block -> [B, 16, rows, columns] of whole patches, `grid` of them."""
        return unpatchify(self.final_layer(image, condition), *grid, self.shape.patch)


def padded(latent: Tensor, patch: int) -> Tensor:
    """A latent [B, C, H, W] continued round its right and lower edge to whole patches."""
    height, width = latent.shape[-2:]
    return F.pad(latent, (0, -width % patch, 0, -height % patch), mode="circular")


def unpatchify(patches: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """[B, rows * columns, patch * patch * C], channel fastest -> [B, C, rows * patch, columns * patch]."""
    grid: Tensor = patches.unflatten(2, (patch, patch, -1)).unflatten(1, (rows, columns))
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
