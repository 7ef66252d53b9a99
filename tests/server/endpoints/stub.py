"""The nodes of a text-to-image graph without a model: flat pictures whose colour is a digest of what was asked."""

import hashlib
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from sigmagraph.engine.graph.node import FileIn, Hidden, Options, Progress, Range, Services, Socket, UiResult, node
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS

Model, Clip, Vae = (Annotated[Any, Socket(name)] for name in ("MODEL", "CLIP", "VAE"))
Text, Latent, Pictures = (Annotated[Any, Socket(name)] for name in ("CONDITIONING", "LATENT", "IMAGE"))
Encoder = Annotated[str, FileIn("text_encoders")]
Pixels = Annotated[int, Range(16, 16384, step=16, strict=True)]
RUNS: list[str] = []
"""The prompts that were sampled, in order."""


@node("CheckpointLoaderSimple", category="stub", outputs=("MODEL", "CLIP", "VAE"))
def checkpoint(*, ckpt_name: Annotated[str, FileIn("checkpoints")]) -> Any:
    """A name."""
    return ckpt_name, ckpt_name, ckpt_name


@node("TripleCLIPLoader", category="stub", outputs=("CLIP",))
def encoders(*, clip_name1: Encoder, clip_name2: Encoder, clip_name3: Encoder) -> Any:
    """Three names."""
    return f"{clip_name1} {clip_name2} {clip_name3}"


@node("CLIPTextEncode", category="stub", outputs=("CONDITIONING",))
def encode(*, text: str, clip: Clip) -> Any:
    """The text."""
    return text


@node("EmptySD3LatentImage", category="stub", outputs=("LATENT",))
def blank(*, width: Pixels, height: Pixels, batch_size: Annotated[int, Range(1, 4096)]) -> Any:
    """The size."""
    return width, height, batch_size


@node("KSampler", category="stub", outputs=("LATENT",))
def sample(
    *,
    model: Model,
    seed: Annotated[int, Range(0, 2**64 - 1)],
    steps: Annotated[int, Range(1, 10_000)],
    cfg: Annotated[float, Range(0.0, 100.0)],
    sampler_name: Annotated[str, Options(list(SOLVERS))],
    scheduler: Annotated[str, Options(list(SCHEDULES))],
    positive: Text,
    negative: Text,
    latent_image: Latent,
    denoise: Annotated[float, Range(0.0, 1.0)] = 1.0,
) -> Generator[Progress, None, Any]:
    """Colours; `fail` in the prompt fails, `wait` stays until it is cancelled, `nothing` draws no picture."""
    RUNS.append(positive)
    if "fail" in positive:
        raise ValueError("the stub was told to fail\nby its prompt")
    while "wait" in positive:
        yield Progress(1, steps)
        time.sleep(0.002)
    yield Progress(steps, steps)
    width, height, count = latent_image
    count = 0 if "nothing" in positive else count
    asked = json.dumps([seed, steps, cfg, sampler_name, scheduler, positive, negative, width, height])
    digests = [hashlib.sha256(f"{asked} {index}".encode()).digest() for index in range(count)]
    return [(width, height, (digest[0], digest[1], digest[2])) for digest in digests]


@node("VAEDecode", category="stub", outputs=("IMAGE",))
def decode(*, samples: Latent, vae: Vae) -> Any:
    """Sizes and colours."""
    return samples


@node("SaveImage", category="stub", output_node=True)
def save(*, images: Pictures, filename_prefix: str, services: Annotated[Services, Hidden("SERVICES")]) -> UiResult:
    """One PNG each."""
    shown = []
    for index, (width, height, colour) in enumerate(images):
        name = Path(f"{filename_prefix}_{index:05}_.png")
        path = services.output_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), colour).save(path, compress_level=1)
        shown.append({"filename": name.name, "subfolder": str(name.parent), "type": "output"})
    return UiResult(ui={"images": shown})


NODES = {made.class_type: made for made in (checkpoint, encoders, encode, blank, sample, decode, save)}
FILES = (
    "checkpoints/sd3.5_large.safetensors",
    "checkpoints/sd3.5_large_turbo.safetensors",
    "text_encoders/clip_l.safetensors",
    "text_encoders/clip_g.safetensors",
    "text_encoders/t5xxl_fp16.safetensors",
)


def make_home(home: Path) -> None:
    """Folders with files of the names the graphs want."""
    for name in FILES:
        path = home / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    for name in ("input", "output", "temp", "user"):
        (home / name).mkdir(parents=True, exist_ok=True)
