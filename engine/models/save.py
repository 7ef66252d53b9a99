"""Values to weight files: the official names, the precision they are stored in, one tensor in memory at a time.

Float8 weights with a scale are written as such, everything else made from stored tensors in 16 bits or more.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.models.files.convert import as_read, kept
from sigmagraph.engine.models.files.fp8 import MARKER, SCALE, Rounded, scaled_parts
from sigmagraph.engine.models.files.pack import PREFIXES, T5, TEXT_METADATA, TRANSFORMER, in_files
from sigmagraph.engine.models.files.read import StoredTensor, Weights
from sigmagraph.engine.models.files.write import Outgoing
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.text.vocabulary import METADATA_PREFIX, Vocabularies
from sigmagraph.engine.models.value import Model, Vae

FULL, LOW_RANK = "full_diff", "standard"
OVERSAMPLED, POWER_STEPS = 16, 6  # of the randomised decomposition: exact to float32 on what has the rank asked for


def model_tensors(model: Model, prefix: str = PREFIXES[TRANSFORMER]) -> list[Outgoing]:
    """The transformer with its adapters, as files hold it."""
    return tensors(model.recipe.weights, prefix)


def vae_tensors(vae: Vae, prefix: str = "") -> list[Outgoing]:
    """The autoencoder."""
    return tensors(vae.recipe.weights, prefix)


def clip_tensors(clip: Clip) -> dict[str, list[Outgoing]]:
    """Each encoder with its adapters, by its name, as a file of it alone holds it."""
    return {name: tensors(encoder_weights(name, encoder)) for name, encoder in clip.patched.items()}


def text_metadata(clip: Clip, encoders: Collection[str]) -> dict[str, str]:
    """What a file of these encoders has to say: the tokenizers that came with them, and the length of T5's prompts."""
    told = clip.vocabularies.metadata if isinstance(clip.vocabularies, Vocabularies) else {}
    wanted = {METADATA_PREFIX + name for name in encoders} | ({TEXT_METADATA} if T5 in encoders else set())
    return {name: told[name] for name in sorted(wanted & told.keys())}


def encoder_weights(name: str, encoder: Any) -> Weights:
    """An encoder's tensors in the names of files: T5's table once, CLIP's tower with its projection."""
    extra = {} if encoder.projection is None else {"text_projection.weight": encoder.projection}
    return in_files(name, {**encoder.recipe.weights, **extra})


def tensors(weights: Weights, prefix: str = "") -> list[Outgoing]:
    """What a network's tensors become in a safetensors file."""
    made: list[Outgoing] = []
    is_scaled = False
    for name, stored in weights.items():
        pair = scaled_parts(stored)
        if pair is None or not name.endswith(".weight"):
            made.append(_dense(prefix + name, stored))
            continue
        is_scaled, scale = True, prefix + name.removesuffix(".weight") + SCALE
        made += [kept(prefix + name, pair[0]), kept(scale, pair[1])]
    if is_scaled:
        made.append(Outgoing(prefix + MARKER, (0,), torch.float8_e4m3fn, lambda _: ()))
    return made


def _dense(name: str, stored: StoredTensor) -> Outgoing:
    """In the precision it is stored in; what was made of 8 bits or blocks, in float16."""
    is_as_stored = stored.combine is None or isinstance(stored.combine, Rounded) or stored.dtype.itemsize > 1
    return kept(name, stored) if is_as_stored else as_read(name, stored, torch.float16)


def adapter_of(
    model: Model | None, clip: Clip | None, rank: int, kind: str, has_biases: bool
) -> list[tuple[str, StoredTensor, int, str]]:
    """What an adapter file of differences will hold: base key, the difference, its rank, and `kind`."""
    tables: dict[str, Weights] = {}
    if model is not None:
        tables["diffusion_model."] = model.recipe.weights
    for name, encoder in (clip.patched if clip is not None else {}).items():
        root = PREFIXES[name]
        tables[root] = in_files(name, encoder.recipe.weights)  # type: ignore[attr-defined]  # a loaded encoder has one
    found: list[tuple[str, StoredTensor, int, str]] = []
    for prefix, weights in tables.items():
        for name, stored in weights.items():
            if name.endswith(".weight") and len(stored.shape) >= 2:
                found.append((prefix + name.removesuffix(".weight"), stored, rank, kind))
            elif has_biases and name.endswith(".bias"):
                found.append((prefix + name.removesuffix(".bias"), stored, 0, "diff_b"))
    return found


def adapter_tensors(base: str, stored: StoredTensor, rank: int, kind: str) -> list[Outgoing]:
    """The tensors of one base key: two factors of the best approximation of this rank, or the difference itself."""
    if kind == "diff_b":
        return [_half_of(f"{base}.diff_b", stored.shape, stored.read)]
    if kind == FULL:
        return [_half_of(f"{base}.diff", stored.shape, stored.read)]
    rows, columns = stored.shape[0], torch.Size(stored.shape[1:]).numel()
    rank = min(rank, rows, columns)
    factors = _Factors(stored, rank)
    tail = stored.shape[1:]
    ones = [1] * (len(tail) - 1)
    return [
        _half_of(f"{base}.lora_up.weight", (rows, rank, *ones), factors.up),
        _half_of(f"{base}.lora_down.weight", (rank, *tail), factors.down),
    ]


def _half_of(name: str, shape: tuple[int, ...], values: Any) -> Outgoing:
    return Outgoing(name, shape, torch.float16, lambda _: [values().half()])


class _Factors:
    """Up and down of one difference, made when the first is asked for and let go with the second."""

    def __init__(self, stored: StoredTensor, rank: int) -> None:
        self._stored, self._rank = stored, rank
        self._down: Tensor | None = None

    def up(self) -> Tensor:
        """[rows, rank], the singular values in it."""
        up, self._down = best_factors(self._stored.read().float().flatten(1), self._rank)
        return up

    def down(self) -> Tensor:
        """[rank, columns]."""
        if self._down is None:
            self.up()
        down, self._down = self._down, None
        assert down is not None
        return down


def best_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Up [m, rank] and down [rank, n] whose product is nearest to the matrix in the least squares (Eckart-Young).

    By a randomised range finder with power steps (Halko 2011, arXiv:0909.4061, algorithm 4.4) where the rank is small.
    """
    if rank + OVERSAMPLED >= min(matrix.shape) // 2:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :rank] * values[:rank], right[:rank]
    generator = torch.Generator(matrix.device).manual_seed(0)
    drawn = torch.randn(matrix.shape[1], rank + OVERSAMPLED, generator=generator, device=matrix.device)
    basis = torch.linalg.qr(matrix @ drawn).Q
    for _ in range(POWER_STEPS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ left[:, :rank] * values[:rank], right[:rank]


def spec_metadata(title: str, has_model: bool = True) -> dict[str, str]:
    """What the model's file says of itself (modelspec 1.0.0)."""
    architecture = {"modelspec.architecture": "stable-diffusion-v3-medium"} if has_model else {}
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "sgm",
        "modelspec.title": title,
        **architecture,
    }
