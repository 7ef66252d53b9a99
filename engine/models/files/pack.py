"""All-in-one checkpoints into a file for each part and back, and the networks that GGUF files hold one of.

Tables of stored tensors in, tables out: names change, no tensor is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sigmagraph.engine.errors import BadValue, TensorMismatch, UnknownModel
from sigmagraph.engine.models.files.convert import ConvertTarget
from sigmagraph.engine.models.files.detect import CHECKPOINT_ENCODERS, MMDIT_MARK, Parts, find_parts
from sigmagraph.engine.models.files.gguf import ARCHITECTURE, llama_name
from sigmagraph.engine.models.files.read import StoredTensor, WeightFile, Weights, under
from sigmagraph.engine.models.files.write import Outgoing

TRANSFORMER, VAE, T5 = "transformer", "vae", "t5xxl"
PREFIXES: Mapping[str, str] = {
    TRANSFORMER: "model.diffusion_model.",
    VAE: "first_stage_model.",
    **CHECKPOINT_ENCODERS,
}
"""Part -> what its tensors' names begin with in a checkpoint."""
FOLDERS: Mapping[str, str] = {
    TRANSFORMER: "diffusion_models",
    VAE: "vae",
    **dict.fromkeys(CHECKPOINT_ENCODERS, "text_encoders"),
}
BARE = {TRANSFORMER: ("model.diffusion_model.", "diffusion_model."), VAE: ("first_stage_model.",)}
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9}  # general.file_type of ggml
TEXT_METADATA = "sigmagraph.text"
OF_A_GGUF = ("general.", "split.", "sd3.", "t5.", "t5encoder.", "tokenizer.ggml.", "comfy.gguf.")
"""What a GGUF file says of itself: of another file it is not true, and its numbers are strings once they are read."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """What goes into one file: a part's tensors in the names that a file of it alone has, and its metadata."""

    part: str
    weights: Weights
    metadata: Mapping[str, str]


def split(file: WeightFile) -> tuple[list[FilePart], list[str]]:
    """The parts of a checkpoint, and the names of tensors that belong to none. Raises `UnknownModel` for one part."""
    tables = {part: under(file.weights, prefix) for part, prefix in PREFIXES.items()}
    found = {part: table for part, table in tables.items() if table}
    if len(found) < 2:
        raise UnknownModel(
            f"{file.path}: holds {', '.join(found) or 'no part'} under a checkpoint's names; nothing to split"
        )
    rest = [name for name in file.weights if not name.startswith(tuple(PREFIXES.values()))]
    return [FilePart(part, table, _metadata_of(part, file.metadata, found)) for part, table in found.items()], rest


def _metadata_of(part: str, metadata: Mapping[str, str], parts: Mapping[str, object]) -> dict[str, str]:
    """A tokenizer goes with its encoder, the length of prompts with T5, everything else with the transformer."""
    owners = {f"tokenizer.{name}": name for name in CHECKPOINT_ENCODERS} | {TEXT_METADATA: T5}
    first = TRANSFORMER if TRANSFORMER in parts else next(iter(parts))
    return {
        name: value
        for name, value in metadata.items()
        if part == (owners[name] if owners.get(name) in parts else first)
    }


def join(files: Sequence[WeightFile]) -> tuple[Weights, dict[str, str]]:
    """The tensors of several files under a checkpoint's names. Raises `BadValue` where a part comes twice."""
    joined: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    taken: dict[str, WeightFile] = {}
    for file in files:
        for part, weights in standing_alone(file).items():
            if part in taken:
                raise BadValue("--join", f"{file.path}", f"a file without {part}, which {taken[part].path} brings")
            taken[part] = file
            joined |= {PREFIXES[part] + name: stored for name, stored in weights.items()}
        metadata |= file.metadata
    if TRANSFORMER not in taken:
        raise BadValue(
            "--join", ", ".join(str(file.path) for file in files), "a file with a diffusion model among them"
        )
    return joined, _of_no_container(metadata)


def _of_no_container(metadata: Mapping[str, str]) -> dict[str, str]:
    """What stays true in another file."""
    return {name: value for name, value in metadata.items() if not name.startswith(OF_A_GGUF)}


def standing_alone(file: WeightFile) -> dict[str, Weights]:
    """Part -> its tensors as a file of that part alone names them: as they are here, or in the original layout."""
    parts = find_parts(file)
    tables: dict[str, Weights] = {}
    if parts.mmdit is not None:
        bare = _without(file.weights, BARE[TRANSFORMER])
        tables[TRANSFORMER] = bare if MMDIT_MARK in bare else parts.mmdit
    if parts.vae is not None:
        bare = _without(file.weights, BARE[VAE])
        tables[VAE] = bare if set(parts.vae) <= set(bare) else parts.vae
    for name, weights in parts.encoders.items():
        inside = under(file.weights, CHECKPOINT_ENCODERS[name]) or file.weights
        theirs = in_files(name, weights)
        tables[name] = inside if set(theirs) <= set(inside) else theirs
    return tables


def _without(weights: Weights, prefixes: Sequence[str]) -> Weights:
    return next((table for prefix in prefixes if (table := under(weights, prefix))), weights)


def in_files(encoder: str, weights: Weights) -> Weights:
    """An encoder's tensors, named in memory, under the names of files: T5's table once, CLIP's tower by its prefix."""
    if encoder == T5:
        return {name: stored for name, stored in weights.items() if name != "encoder.embed_tokens.weight"}
    return {
        name if name.startswith("text_projection") else f"text_model.{name}": stored for name, stored in weights.items()
    }


def gguf_of(file: WeightFile, target: ConvertTarget) -> tuple[list[Outgoing], dict[str, str | int | float]]:
    """The one transformer or T5 of a file in GGUF. Raises `BadValue` for a file of several parts, or of another."""
    parts = find_parts(file)
    assert target.form is not None
    kinds: dict[str, str | int | float] = {
        "general.quantization_version": 2,
        "general.file_type": FILE_TYPES[target.form.name],
        **_of_no_container(file.metadata),
    }
    if _only(parts) == TRANSFORMER and parts.mmdit is not None:
        return target.tensors(parts.mmdit), {ARCHITECTURE: "sd3", **kinds}
    if _only(parts) == T5:
        weights = in_files(T5, parts.encoders[T5])
        named = [
            Outgoing(llama_name(made.name), made.shape, made.dtype, made.pieces, made.form, made.ahead)
            for made in target.tensors(weights)
        ]
        return named, {ARCHITECTURE: "t5encoder", **_t5_sizes(weights), **kinds}
    raise BadValue(
        "--to", target.name, f"a diffusion model or a T5 alone; {file.path} holds {parts.listing()}; see --split"
    )


def _only(parts: Parts) -> str | None:
    found = [name for name, part in ((TRANSFORMER, parts.mmdit), (VAE, parts.vae)) if part is not None]
    found += parts.encoders
    return found[0] if len(found) == 1 else None


def _t5_sizes(weights: Weights) -> dict[str, str | int | float]:
    """What llama.cpp's readers want to know of a T5 encoder."""
    block = "encoder.block.0.layer."
    try:
        buckets, heads = weights[f"{block}0.SelfAttention.relative_attention_bias.weight"].shape
        vocabulary, width = weights["shared.weight"].shape
        inner = weights[f"{block}0.SelfAttention.q.weight"].shape[0]
        feed_forward = weights[f"{block}1.DenseReluDense.wi_1.weight"].shape[0]
        blocks = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.block."))
        head_width = inner // heads
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise TensorMismatch(f"not a T5 v1.1 encoder: {error} is missing or misshapen") from None
    sizes: dict[str, str | int | float] = {
        "block_count": blocks,
        "context_length": 512,
        "vocab_size": vocabulary,
        "embedding_length": width,
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.key_length": head_width,
        "attention.value_length": head_width,
        "attention.relative_buckets_count": buckets,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    return {f"t5encoder.{name}": value for name, value in sizes.items()}
