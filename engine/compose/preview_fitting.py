"""What a preview decoder is fitted on: pictures through the VAE, their blends, and estimates along real runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import load_checkpoint, load_vae
from sigmagraph.engine.models.files.detect import find_parts
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.preview import ENDING, fit_preview, save_preview, shown_rms
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.value import Model, Vae
from sigmagraph.engine.sampling import Cfg, ComfyNoise, Sampling, find_schedule, run_sigmas

__all__ = ["FittedPreview", "fit_preview_for", "random_pictures"]

PICTURES, AT_ONCE, RUN_STEPS, GUIDANCE, SEED = 96, 8, 10, 4.0, 20260101
HELD_OUT = 10  # every tenth pair is measured on, not fitted to
Pairs = Iterator[tuple[Tensor, Tensor]]
"""Latents [B, C, h, w] in model space and the VAE's pictures [B, 3, H, W] of them, in 0..1."""


@dataclass(frozen=True, slots=True)
class FittedPreview:
    """Where the decoder was written, on how many latents it was fitted, and its error on those held out (of 255)."""

    path: Path
    latents: int
    rms: float


def fit_preview_for(
    weights: Path,
    prompts: Sequence[str] = (),
    side: int = 256,
    steps: int = 3000,
    output: Path | None = None,
    told: Callable[[str], None] = lambda what: None,
) -> FittedPreview:
    """Fit a decoder for a VAE, or a checkpoint with one, and keep it beside it. `side`: of the pictures, in pixels.

    With `prompts` (and a model and text encoders in the file) its estimates along short runs are fitted too: what a
    preview is for. Raises `BadValue` where the file cannot.
    """
    vae, runnable = _opened(weights)
    if prompts and runnable is None:
        raise BadValue("prompts", prompts[0], "none: the file has no model with text encoders to run them with")
    told("pictures through the VAE")
    pairs = [*_encoded(vae, side)]
    for place, prompt in enumerate(prompts):
        assert runnable is not None
        told(f"run {place + 1} of {len(prompts)}")
        pairs += _along(vae, runnable, prompt, place, side // vae.latent_format.downscale)
    latents, pictures = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    held = torch.arange(len(latents)) % HELD_OUT == HELD_OUT - 1
    told("fitting")
    decoder = fit_preview(latents[~held], pictures[~held], steps)
    path = save_preview(decoder, output or weights.with_suffix(ENDING), weights.name)
    return FittedPreview(path, int((~held).sum()), shown_rms(decoder, latents[held], pictures[held]))


@dataclass(frozen=True, slots=True)
class _Runnable:
    """A model and its text encoders."""

    model: Model
    clip: Clip


def _opened(weights: Path) -> tuple[Vae, _Runnable | None]:
    """The VAE of a file, and what runs prompts where that is in it too."""
    if find_parts(open_weights(weights)).mmdit is None:
        return load_vae(weights), None
    model, clip, vae = load_checkpoint(weights)
    if vae is None:
        raise BadValue("file", str(weights), "a VAE, or a checkpoint with one")
    return vae, _Runnable(model, clip) if clip is not None else None


def _shown(vae: Vae, latents: Tensor) -> tuple[Tensor, Tensor]:
    """The pair of some latents in model space."""
    pictures = vae.decode(vae.latent_format.to_vae(latents)).movedim(-1, 1)
    return latents.float().cpu().clone(), pictures.clone()  # clones are no inference tensors: a fit takes them


@torch.no_grad()
def _encoded(vae: Vae, side: int) -> Pairs:
    """Random pictures, and the mean of each with its neighbour: early estimates are blends."""
    generator = torch.Generator().manual_seed(SEED)
    for batch in random_pictures(PICTURES, side, generator).split(AT_ONCE):
        latents = vae.latent_format.to_model(vae.encode(batch).float())
        yield _shown(vae, latents)
        yield _shown(vae, (latents + latents.roll(1, 0)) / 2)


@torch.no_grad()
def _along(vae: Vae, found: _Runnable, prompt: str, seed: int, side: int) -> Pairs:
    """The estimates of a short run."""
    rules = found.model.parameterisation
    sigmas = run_sigmas(find_schedule("simple"), rules.levels, RUN_STEPS)
    guided = Cfg(found.model.predict, found.clip.encode(prompt), found.clip.encode(""), GUIDANCE)
    blank = torch.zeros(1, vae.latent_format.channels, side, side)
    for tick in Sampling(guided, blank, sigmas, rules, "euler", noise=ComfyNoise(seed)).ticks():
        yield _shown(vae, tick.denoised)


def random_pictures(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Pictures [count, side, side, 3] in 0..1: blends of smooth fields of different grain, half with flat boxes."""
    made = torch.zeros(count, 3, side, side)
    for grain in (2, 4, 8, 16):
        field = torch.rand(count, 3, grain, grain, generator=generator)
        made += F.interpolate(field, side, mode="bicubic") * torch.rand(count, 1, 1, 1, generator=generator)
    low, high = made.amin((1, 2, 3), keepdim=True), made.amax((1, 2, 3), keepdim=True)
    made = (made - low) / (high - low)
    for picture in made[::2]:
        for _ in range(6):
            x, y, size = (int(v) for v in torch.randint(side // 16, side * 11 // 16, (3,), generator=generator))
            length = side // 16 + size // 2
            picture[:, y : y + length, x : x + length] = torch.rand(3, 1, 1, generator=generator)
    return made.permute(0, 2, 3, 1)
