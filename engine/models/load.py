"""Files -> values: the loaders that nodes call. Each failure is one `EngineError` with one clear message.

The order is always: header checks, recognising, names and shapes against a module without memory, room, one copy.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, CorruptFile, MissingFile, TensorMismatch, UnknownModel
from sigmagraph.engine.models.arch import (
    Autoencoder,
    ControlShape,
    JointControlNet,
    MMDiT,
    MMDiTShape,
    StreamControlNet,
    VaeShape,
)
from sigmagraph.engine.models.arch.mmdit import HEAD_WIDTH
from sigmagraph.engine.models.arch.tiny_vae import PixelSpace, TinyAutoencoder, TinyShape
from sigmagraph.engine.models.controlnet import HINT_KINDS, ControlNet, HintKind
from sigmagraph.engine.models.files.detect import Parts, control_type, find_parts, main_dtype, unexpected
from sigmagraph.engine.models.files.fp8 import rounded, scaled
from sigmagraph.engine.models.files.read import StoredTensor, WeightFile, Weights, files_of, open_weights
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.modulation_tables import MODULATION
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.models.spec import LatentFormat, sd3_spec
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.text.embeddings import Embeddings
from sigmagraph.engine.models.text.encode import CLIP_G, CLIP_L, T5, TextEncoder, TextWidths
from sigmagraph.engine.models.text.vocabulary import Vocabularies
from sigmagraph.engine.models.value import Model, Vae

log = logging.getLogger(__name__)
S = TypeVar("S")
TEXT_METADATA = "sigmagraph.text"
T5_MIN_LENGTH = 77
PROJECTION = "text_projection.weight"
TEXT_ENCODER_TYPES = ("sd3",)


class Checkpoint(NamedTuple):
    """What an all-in-one file held; a part that the file lacks is None."""

    model: Model
    clip: Clip | None
    vae: Vae | None


def load_checkpoint(path: Path, device: torch.device | None = None) -> Checkpoint:
    """The diffusion model, the text encoders and the VAE of one file; the last two may be missing."""
    file = open_weights(path)
    parts = find_parts(file)
    model = _model(file, parts, device)
    shape = model.spec.shape
    widths = TextWidths(shape.context_width, shape.pooled_width)
    clip = _clip([file], parts.encoders, widths, device) if parts.encoders else None
    vae = _vae(file, parts, device) if parts.vae is not None else None
    if vae is None and parts.tiny_vae is not None:
        vae = _tiny_vae(str(file.path), parts.tiny_vae, device)
    RESIDENCY.admit([*recipes_of(clip), model.recipe, *([vae.recipe] if vae is not None else [])])
    return Checkpoint(model, clip, vae)


ENCODER_FOLDERS = {"text_encoder": CLIP_L, "text_encoder_2": CLIP_G, "text_encoder_3": T5}
PIPELINE_INDEX = "model_index.json"


def load_pipeline(folder: Path, device: torch.device | None = None) -> Checkpoint:
    """A folder as diffusers saves pipelines: transformer, autoencoder and the text encoders it has.

    Of weights in several precisions those named after the chosen precision are read, else those without a name.
    """
    listed = _pipeline_parts(folder / PIPELINE_INDEX)
    chosen = RESIDENCY.choices
    file = open_weights(folder / "transformer", chosen.model)
    model = _model(file, find_parts(file), device)
    encoders: dict[str, WeightFile] = {
        name: open_weights(folder / place, chosen.text) for place, name in ENCODER_FOLDERS.items() if place in listed
    }
    towers: dict[str, Weights] = {}
    for name, held in encoders.items():
        parts = find_parts(held)
        if len(parts.encoders) != 1:
            raise unexpected(held, parts, f"the text encoder {name}")
        (towers[name],) = parts.encoders.values()
    widths = TextWidths(model.spec.shape.context_width, model.spec.shape.pooled_width)
    clip = _clip(list(encoders.values()), towers, widths, device) if towers else None
    vae = None
    if "vae" in listed:
        held = open_weights(folder / "vae", chosen.vae)
        vae = _vae(held, find_parts(held), device)
    RESIDENCY.admit([*recipes_of(clip), model.recipe, *([vae.recipe] if vae is not None else [])])
    return Checkpoint(model, clip, vae)


def _pipeline_parts(index: Path) -> set[str]:
    """Which parts a pipeline has, by their folders. Raises `UnknownModel` where it is of another family."""
    try:
        parsed = json.loads(index.read_text("utf-8"))
        kind = str(parsed.get("_class_name", "no class"))
    except FileNotFoundError:
        raise MissingFile(index, "there is no such file: this folder is not a pipeline of diffusers") from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CorruptFile(index, f"is not the index of a pipeline ({error})") from None
    if "StableDiffusion3" not in kind:
        raise UnknownModel(f"{index}: a pipeline of class {kind}; one of the SD3 family was expected")
    return {name for name, part in parsed.items() if isinstance(part, list) and part and part[0] is not None}


def recipes_of(clip: Clip | None) -> list[Recipe[Any]]:
    """The recipes of a value's text encoders; one that is no file's has none."""
    encoders = clip.encoders.values() if clip is not None else ()
    return [encoder.recipe for encoder in encoders if hasattr(encoder, "recipe")]


def load_diffusion_model(path: Path, device: torch.device | None = None, kept_as: torch.dtype | None = None) -> Model:
    """The transformer of a file, with or without prefix, original or diffusers layout, in shards too.

    `kept_as`: a float8 precision that the blocks' matrices are rounded to and kept in.
    """
    file = open_weights(path)
    model = _model(file, find_parts(file), device, kept_as)
    RESIDENCY.admit([model.recipe])
    return model


def load_vae(path: Path, device: torch.device | None = None) -> Vae:
    """The autoencoder of a file, alone or inside a checkpoint, LDM or diffusers layout."""
    return _vae_in(open_weights(path), device)


def vae_of_tensors(tensors: Mapping[str, Tensor], device: torch.device | None = None) -> Vae:
    """The autoencoder of tensors by name, in the layouts of files. A tensor `pixel_space_vae` asks for none."""
    if "pixel_space_vae" in tensors:
        return pixel_space()
    stored = {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda kept=tensor: kept)  # type: ignore[misc]
        for name, tensor in tensors.items()
    }
    return _vae_in(WeightFile(Path("the tensors given"), stored), device)


def _vae_in(file: WeightFile, device: torch.device | None) -> Vae:
    parts = find_parts(file)
    if parts.vae is None and parts.tiny_vae is not None:
        return _tiny_vae(str(file.path), parts.tiny_vae, device)
    vae = _vae(file, parts, device)
    RESIDENCY.admit([vae.recipe])
    return vae


def load_tiny_vae(encoder: Path, decoder: Path, device: torch.device | None = None) -> Vae:
    """TAESD3 from the two files its author publishes."""
    halves: dict[str, StoredTensor] = {}
    for path in (encoder, decoder):
        file = open_weights(path)
        parts = find_parts(file)
        if parts.tiny_vae is None:
            raise unexpected(file, parts, "half of TAESD3")
        halves |= parts.tiny_vae
    return _tiny_vae(str(decoder), halves, device)


def _tiny_vae(place: str, weights: Weights, device: torch.device | None) -> Vae:
    what = f"{place}: TAESD3"
    try:
        shape = TinyShape.from_tensors({name: tensor.shape for name, tensor in weights.items()})
    except (KeyError, ValueError) as error:
        raise TensorMismatch(f"{what}: a tensor is missing or misshapen ({error})") from None
    where = RESIDENCY.choices.placement("vae", main_dtype(weights), device)
    recipe = Recipe.checked(what, "vae", partial(TinyAutoencoder, shape), weights, where, RESIDENCY)
    RESIDENCY.admit([recipe])
    return Vae(recipe)


def pixel_space() -> Vae:
    """No autoencoder: pictures are their own latents, for models that work on pixels."""
    place = Placement(torch.device("cpu"), torch.float32)
    recipe = Recipe.of(PixelSpace(), place, RESIDENCY, "vae")
    return Vae(recipe, VaeShape(channels=(3,), latent_channels=3), LatentFormat(3, 1, 1.0, 0.0))


def load_controlnet(path: Path, device: torch.device | None = None) -> ControlNet:
    """The ControlNet of a file: SD3.5 Large's kind, in the original layout or diffusers', or one of joint blocks.

    Which hints one of the first kind takes is told by its `control_type`, or where there is none by the file's name.
    """
    file = open_weights(path)
    parts = find_parts(file)
    if parts.control is None:
        raise unexpected(file, parts, "a ControlNet of the SD3 family")
    shape = _shape_of(file, "ControlNet", parts.control, ControlShape.from_tensors)
    _require_sane(file, shape.of_blocks, len(parts.control), "ControlNet")
    if shape.is_joint and not shape.of_blocks.table_side:
        raise TensorMismatch(f"{file.path}: ControlNet: pos_embed is missing")
    where = RESIDENCY.choices.placement("model", main_dtype(parts.control), device)
    what = f"{file.path}: ControlNet"
    recipe: Recipe[Any] = (
        Recipe.checked(
            what, "control", partial(JointControlNet, shape), parts.control, where, RESIDENCY, "joint_blocks."
        )
        if shape.is_joint
        else Recipe.checked(
            what, "control", partial(StreamControlNet, shape), parts.control, where, RESIDENCY, "stream_blocks."
        )
    )
    RESIDENCY.admit([recipe])
    kind = "plain" if shape.is_joint else _hint_kind(file)
    return ControlNet(recipe, shape, kind, takes_pooled=shape.is_joint and _takes_pooled(file.path))


def _hint_kind(file: WeightFile) -> HintKind:
    number = control_type(file.weights)
    if number is not None and number in HINT_KINDS:
        return HINT_KINDS[number]
    names = file.path.name.lower(), file.path.parent.name.lower()  # its own counts first
    return next((kind for name in names for kind in HINT_KINDS.values() if kind in name), "plain")


def _takes_pooled(path: Path) -> bool:
    """What diffusers' configuration beside the file says; without one, joint nets get zeros."""
    folder = path if path.is_dir() else path.parent
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return config.get("force_zeros_for_pooled_projection", True) is False
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def load_text_encoders(paths: Sequence[Path], kind: str = "sd3", device: torch.device | None = None) -> Clip:
    """One to three encoders in any order, routed by their tensors. Each of clip_l, clip_g and t5xxl at most once."""
    if kind not in TEXT_ENCODER_TYPES:
        raise BadValue("type", kind, "'sd3': text encoders of other model families are not supported")
    files = [open_weights(path) for path in paths]
    encoders: dict[str, Weights] = {}
    for file in files:
        parts = find_parts(file)
        if not parts.encoders:
            raise unexpected(file, parts, "a text encoder")
        twice = sorted(set(parts.encoders) & set(encoders))
        if twice:
            raise BadValue("text encoders", str(file.path), f"another encoder than {twice[0]}, which is there already")
        encoders |= parts.encoders
    clip = _clip(files, encoders, _widths(encoders), device)
    RESIDENCY.admit(recipes_of(clip))
    return clip


def _model(file: WeightFile, parts: Parts, device: torch.device | None, kept_as: torch.dtype | None = None) -> Model:
    if parts.mmdit is None:
        raise unexpected(file, parts, "a diffusion model of the SD3 family")
    shape = _shape_of(file, "diffusion model", parts.mmdit, MMDiTShape.from_tensors)
    _require_sane(file, shape, len(parts.mmdit))
    if not shape.table_side:
        log.warning("%s: no position table (pos_embed) in the file: positions are computed, as ComfyUI does", file.path)
    where = RESIDENCY.choices.placement("model", main_dtype(parts.mmdit), device)
    spec = sd3_spec(shape)
    what = f"{file.path}: diffusion model"
    weights = parts.mmdit if kept_as is None else rounded(parts.mmdit, kept_as)
    if kept_as is None and RESIDENCY.choices.model == "fp8":
        weights = scaled(parts.mmdit)
    recipe = Recipe.checked(
        what,
        "model",
        partial(MMDiT, shape),
        weights,
        where,
        RESIDENCY,
        "joint_blocks.",
        MODULATION,
        multiplies=RESIDENCY.choices.model in ("auto", "fp8"),
        second=RESIDENCY.choices.second if device is None else None,
    )
    return Model(recipe, spec, spec.parameterisation)


def _require_sane(file: WeightFile, shape: MMDiTShape, tensors: int, what: str = "diffusion model") -> None:
    """No module is built for sizes that misshapen or misnamed tensors led to."""
    sizes = (shape.pooled_width, shape.context_width, shape.in_channels, shape.out_channels)
    if min(sizes) < 1 or shape.depth > tensors or shape.width % HEAD_WIDTH:
        raise TensorMismatch(f"{file.path}: {what}: its tensors' sizes contradict each other: {shape}")


def _vae(file: WeightFile, parts: Parts, device: torch.device | None) -> Vae:
    if parts.vae is None:
        raise unexpected(file, parts, "a 16-channel VAE")
    shape = _shape_of(file, "VAE", parts.vae, VaeShape.from_tensors)
    where = RESIDENCY.choices.placement("vae", main_dtype(parts.vae), device)
    what = f"{file.path}: VAE"
    return Vae(Recipe.checked(what, "vae", partial(Autoencoder, shape), parts.vae, where, RESIDENCY), shape)


def _shape_of(file: WeightFile, what: str, weights: Weights, read: Callable[[Mapping[str, Sequence[int]]], S]) -> S:
    """The shape record read off the tensors; a deciding tensor that is missing or misshapen is told by its name."""
    try:
        return read({name: tensor.shape for name, tensor in weights.items()})
    except KeyError as error:
        raise TensorMismatch(f"{file.path}: {what}: {error.args[0]} is missing") from None
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise TensorMismatch(f"{file.path}: {what}: misshapen tensors ({error})") from None


def _clip(
    files: Sequence[WeightFile], encoders: Mapping[str, Weights], widths: TextWidths, device: torch.device | None
) -> Clip:
    """Text encoders compute in float32 unless another precision was chosen, whatever they are stored in."""
    from sigmagraph.engine.models.text.encoders import clip_encoder, t5_encoder  # pulls in transformers: seconds

    where = RESIDENCY.choices.placement("text", torch.float32, device)
    metadata = {key: value for file in files for key, value in file.metadata.items()}
    built: dict[str, TextEncoder] = {}
    for name, weights in encoders.items():
        place = str(
            next(file.path for file in files if {piece.state for piece in files_of(weights)} <= set(file.states))
        )
        built[name] = (
            t5_encoder(weights, where, _t5_min_length(files), place)
            if name == T5
            else clip_encoder(name, weights, where, place)
        )
    paths = [file.path for file in files]
    return Clip(built, Vocabularies.beside(paths, metadata), widths, embeddings=Embeddings.beside(paths))


def _widths(encoders: Mapping[str, Weights]) -> TextWidths:
    """What encoders that come without a model expect it to take: T5's width, both CLIPs' together, or the official."""
    official = TextWidths()
    context = _side(encoders.get(T5, {}), "shared.weight", -1) or official.context
    left = _side(encoders.get(CLIP_L, {}), "embeddings.token_embedding.weight", -1)
    right = _side(encoders.get(CLIP_G, {}), PROJECTION, 0) or _side(
        encoders.get(CLIP_G, {}), "embeddings.token_embedding.weight", -1
    )
    return TextWidths(context, left + right if left and right else official.pooled)


def _side(weights: Weights, name: str, axis: int) -> int:
    """The length of a tensor along an axis; 0 where it is not there, or not a matrix."""
    stored = weights.get(name)
    return stored.shape[axis] if stored is not None and len(stored.shape) == 2 else 0


def _t5_min_length(files: Sequence[WeightFile]) -> int:
    """The shortest T5 chunk: 77, unless the metadata of a file says what its model was trained with."""
    for file in files:
        if TEXT_METADATA not in file.metadata:
            continue
        try:
            length = json.loads(file.metadata[TEXT_METADATA]).get("t5xxl_min_length", T5_MIN_LENGTH)
        except (ValueError, AttributeError, RecursionError) as error:
            raise CorruptFile(file.path, f"metadata {TEXT_METADATA} is not a JSON object ({error})") from None
        if type(length) is not int or not 1 <= length <= 4096:
            raise CorruptFile(file.path, f"metadata {TEXT_METADATA}: t5xxl_min_length {length!r} is not in 1 to 4096")
        return length
    return T5_MIN_LENGTH
