"""A prompt in, pictures out, without a graph: the model files of a workspace, found and put together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.compose.arguments import check_callbacks, named_as_arguments, path_of
from sigmagraph.engine.compose.choosing import choose, chosen
from sigmagraph.engine.compose.workspace import Workspace, open_workspace
from sigmagraph.engine.errors import BadValue, MissingFile
from sigmagraph.engine.models import Checkpoint, Clip, Model, Vae, load_checkpoint, load_text_encoders, load_vae
from sigmagraph.engine.models.memory.device import named_device
from sigmagraph.engine.models.value import StepCache
from sigmagraph.engine.sampling import Cfg, ComfyNoise, Sampling, Tick, find_schedule, find_solver, run_sigmas
from sigmagraph.engine.sampling.caches.caching import CacheReport
from sigmagraph.engine.sampling.caller_values import check_number, whole_number
from sigmagraph.engine.sampling.guidance import Adjustment, Combination
from sigmagraph.engine.writing import make_folder, write_file
from sigmagraph.nodes.support.pictures import png_bytes

__all__ = ["Generated", "generate", "load"]

ENCODERS = (
    ("clip_l",),
    ("clip_g",),
    ("t5xxl_fp16", "t5xxl_fp8_e4m3fn", "t5xxl"),
)  # one of each, the first that is there
USUAL_SIDE = 1024


@dataclass(frozen=True)
class Generated:
    """Pictures [B, H, W, 3] in 0..1, and how they came about. In a notebook it shows itself.

    `step_cache` says what a step cache left out, and how far off that led.
    """

    images: Tensor
    latent: Tensor
    sigmas: tuple[float, ...]
    evaluations: int
    seconds: float
    parameters: dict[str, Any]
    step_cache: CacheReport | None = None

    def save(self, path: str | Path) -> list[Path]:
        """Write PNGs that carry `parameters`; of several, the second is `name_1.png`. The paths written."""
        place = path_of("path", path)
        if place is None or place.suffix.lower() != ".png":
            raise BadValue("path", path, "a name that ends in .png")
        make_folder(place.parent)
        names = [place, *(place.with_stem(f"{place.stem}_{i}") for i in range(1, len(self.images)))]
        files = zip(names, self.images, strict=True)
        return [write_file(name, png_bytes(image, {"parameters": self.parameters})) for name, image in files]

    def _repr_png_(self) -> bytes:
        from PIL import Image

        row = torch.cat(list(self.images), dim=1)
        buffer = BytesIO()
        Image.fromarray((row * 255).round().to(torch.uint8).numpy()).save(buffer, "PNG")
        return buffer.getvalue()


def load(
    name: str | Path,
    *,
    text_encoders: Sequence[str | Path] = (),
    vae: str | Path | None = None,
    home: str | Path | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    memory: str | None = None,
    compile: str | None = None,
) -> Checkpoint:
    """A checkpoint by its path, or by its name in models/checkpoints: `(model, clip, vae)`.

    Text encoders that it lacks are those named, else the ones of models/text_encoders that SD3 uses; where none are
    found, `clip` is None. `vae` names one that is not in the file. Nothing is read until it is needed. `precision`,
    `memory` and `compile` are `sigmagraph run`'s options; the last two hold for the whole process from then on.
    """
    if isinstance(text_encoders, str) or not isinstance(text_encoders, Sequence):
        raise BadValue("text_encoders", text_encoders, "a list of files or names")
    with named_as_arguments():
        return _loaded(
            open_workspace(path_of("home", home)), name, text_encoders, vae, device, precision, memory, compile
        )


def _loaded(
    space: Workspace,
    name: str | Path,
    text_encoders: Sequence[str | Path],
    vae: str | Path | None,
    device: str | torch.device | None,
    precision: str | None,
    memory: str | None,
    compile_: str | None,
) -> Checkpoint:
    where = device if device is None or isinstance(device, torch.device) else named_device(device)
    choose(memory=memory, compile_=compile_)
    with chosen(precision):
        found = load_checkpoint(_file(space, "checkpoints", name), where)
        paths = [_file(space, "text_encoders", encoder) for encoder in text_encoders]
        paths = paths or (_usual_encoders(space) if found.clip is None else [])
        clip = load_text_encoders(paths, device=where) if paths else found.clip
        autoencoder = load_vae(_file(space, "vae", vae), where) if vae is not None else found.vae
    if clip is not None:
        clip = clip.looking_in(space.folders.directories("tokenizers"), space.folders.directories("embeddings"))
    return Checkpoint(found.model, clip, autoencoder)


def _check_string(name: str, given: object) -> None:
    if not isinstance(given, str):
        raise BadValue(name, given, "a string")
    if any("\ud800" <= letter <= "\udfff" for letter in given):
        raise BadValue(name, given, "a string without halves of surrogate pairs")


def generate(
    checkpoint: Checkpoint,
    prompt: str,
    *,
    negative: str = "",
    steps: int = 28,
    seed: int = 0,
    guidance_scale: float = 4.5,
    width: int | None = None,
    height: int | None = None,
    batch_size: int = 1,
    solver: str = "dpmpp_2m",
    schedule: str = "sgm_uniform",
    guidance: Sequence[Combination | Adjustment] = (),
    step_cache: StepCache | None = None,
    measure_drift: bool = False,
    on_tick: Callable[[Tick], None] | None = None,
) -> Generated:
    """Make pictures of a prompt with a checkpoint that `load` returned.

    Width and height are in pixels, 1024 where the model goes so far; `guidance` are further rules: `Rescale(0.7)`.
    Names mean their newest revision; `euler@1` is what a saved graph means by `euler`. `step_cache` leaves evaluations
    out: `FirstBlock(0.1)`. With `measure_drift` a second run without it says how far off the first one is.
    """
    model, clip, vae = _complete(checkpoint)
    for name, text in (("prompt", prompt), ("negative", negative), ("solver", solver), ("schedule", schedule)):
        _check_string(name, text)
    check_number("guidance_scale", guidance_scale)
    check_callbacks(on_tick=on_tick)
    steps = whole_number("steps", steps, "a whole number, 1 or more")
    seed = whole_number("seed", seed, "a whole number from 0 to 2^64 - 1")
    if step_cache is not None and not isinstance(step_cache, StepCache):
        raise BadValue("step_cache", step_cache, "a step cache such as FirstBlock(0.1)")
    model = model if step_cache is None else model.with_step_cache(step_cache)
    began = time.perf_counter()
    rule, levels = find_solver(solver), model.parameterisation.levels
    sigmas = run_sigmas(find_schedule(schedule), levels, steps, drops_penultimate=rule.drops_penultimate)
    start = _blank(model, width, height, batch_size)
    denoiser = _guided(model.guided(clip.encode(prompt), clip.encode(negative), guidance_scale), guidance)
    count = 0

    def heard(tick: Tick) -> None:
        nonlocal count
        count = tick.evaluations
        if on_tick is not None:
            on_tick(tick)

    reports: list[CacheReport] = []
    given = denoiser, start, sigmas, model.parameterisation, rule
    sampling = Sampling(*given, noise=ComfyNoise(seed), on_cached=reports.append)
    final = sampling.run(on_tick=heard)
    report = reports[0] if reports else None
    if report is not None and (measure_drift or model.measures_drift):
        report = report.measured(final, sampling.without_cache().run())
    latent = model.spec.latent_format.to_vae(final.float()).cpu()
    parameters = {
        "prompt": prompt,
        "negative": negative,
        "steps": steps,
        "seed": seed,
        "guidance_scale": guidance_scale,
        "solver": f"{rule.name}@{rule.revision}",
        "schedule": schedule,
    } | ({"step_cache": report.written()} if report is not None else {})
    images = vae.decode(latent)
    return Generated(images, latent, tuple(sigmas), count, time.perf_counter() - began, parameters, report)


def _complete(checkpoint: Checkpoint) -> tuple[Model, Clip, Vae]:
    if not isinstance(checkpoint, Checkpoint):
        raise BadValue("checkpoint", checkpoint, "what sigmagraph.load(name) returned")
    if checkpoint.clip is None:
        wanted = "one with text encoders: load(name, text_encoders=[...]); `sigmagraph fetch text-encoders` brings them"
        raise BadValue("checkpoint.clip", None, wanted)
    if checkpoint.vae is None:
        raise BadValue("checkpoint.vae", None, "one with an autoencoder: load(name, vae=...)")
    return checkpoint.model, checkpoint.clip, checkpoint.vae


def _blank(model: Model, width: int | None, height: int | None, batch_size: int) -> Tensor:
    """Zeros in model units for pictures of that size."""
    step, largest, shape = model.spec.pixel_step, model.spec.largest_side, model.spec.latent_format
    usual = min(USUAL_SIDE, largest)
    sides = {"height": height if height is not None else usual, "width": width if width is not None else usual}
    for name, side in sides.items():
        allowed = f"a multiple of {step} from {step} to {largest}"
        if whole_number(name, side, allowed) % step or not step <= side <= largest:
            raise BadValue(name, side, allowed)
    if whole_number("batch_size", batch_size, "a whole number, 1 or more") < 1:
        raise BadValue("batch_size", batch_size, "a whole number, 1 or more")
    rows, columns = (side // shape.downscale for side in sides.values())
    return torch.zeros(batch_size, shape.channels, rows, columns, device=model.placement.device)


def _guided(denoiser: Cfg, rules: Sequence[Combination | Adjustment]) -> Cfg:
    """The guidance with further rules: one that combines takes the formula's place, the others follow it."""
    listed: Any = [rules] if callable(rules) else rules
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise BadValue("guidance", rules, "a list of rules such as Rescale(0.7)")
    for rule in listed:
        is_formula = hasattr(rule, "is_neutral")
        changed: dict[str, Any] = {"combine": rule} if is_formula else {"adjust": (*denoiser.adjust, rule)}
        denoiser = replace(denoiser, **changed)
    return denoiser


def _file(space: Workspace, folder: str, name: str | Path) -> Path:
    """A file by its path, else by its name in a model folder."""
    path = path_of(f"file in {folder}", name)
    if path is None:
        raise BadValue(f"file in {folder}", name, "a path, or a name in that folder")
    if path.is_file():
        return path
    if path.is_absolute():
        raise MissingFile(path, "there is no such file")
    return space.folders.path(folder, str(name))


def _usual_encoders(space: Workspace) -> list[Path]:
    """The text encoders of the SD3 family, of each the first that is there."""
    there = set(space.folders.files("text_encoders"))
    found = [
        next((f"{name}.safetensors" for name in names if f"{name}.safetensors" in there), None) for names in ENCODERS
    ]
    return [space.folders.path("text_encoders", name) for name in found if name is not None]
