"""Preview decoders as files: fitted to a VAE, kept beside the weights they belong to as NAME.preview, found there."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from sigmagraph.engine.errors import CorruptFile
from sigmagraph.engine.models.arch.preview import PreviewDecoder
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.writing import write_file

__all__ = ["fit_preview", "load_preview", "preview_beside", "save_preview", "shown_rms"]

ENDING, MARKER = ".preview", "sigmagraph.preview"
STEPS, BATCH, RATE = 3000, 32, 4e-3


def preview_beside(weights: Path) -> Path | None:
    """The preview decoder of a weight file, if one is kept beside it or beside what it links to."""
    places = [weights.with_suffix(ENDING), weights.resolve().with_suffix(ENDING)]
    return next((place for place in places if place.is_file()), None)


def save_preview(decoder: PreviewDecoder, path: Path, about: str) -> Path:
    """Write it in half precision; `about` says what it was fitted on."""
    tensors = {name: tensor.half().contiguous() for name, tensor in decoder.state_dict().items()}
    return write_file(path, save(tensors, {MARKER: "1", "fitted_on": about}))


def load_preview(path: Path) -> PreviewDecoder:
    """Read one. Raises `CorruptFile` where the file is something else."""
    file = open_weights(path)
    shapes = {name: tensor.shape for name, tensor in file.weights.items()}
    try:
        width, channels, *_ = shapes["first.weight"]
        enlarges = round((shapes["last.weight"][0] / 3) ** 0.5)
        decoder = PreviewDecoder(channels, width, enlarges)
        expected = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        raise CorruptFile(path, f"is not a preview decoder ({error})") from error
    if expected != {name: tuple(shape) for name, shape in shapes.items()}:
        raise CorruptFile(path, "is not a preview decoder: its tensors have other names or sizes")
    decoder.load_state_dict({name: tensor.read().float() for name, tensor in file.weights.items()})
    return decoder.eval()


def fit_preview(
    latents: Tensor,
    pictures: Tensor,
    steps: int = STEPS,
    seed: int = 0,
    told: Callable[[int], None] = lambda step: None,
) -> PreviewDecoder:
    """A decoder fitted to latents [N, C, h, w] in model space and their pictures [N, 3, H, W] in 0..1.

    `told` hears of every step.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = PreviewDecoder(latents.shape[1])
    decoder.mean.copy_(latents.mean((0, 2, 3)))
    decoder.std.copy_(latents.std((0, 2, 3)).clamp(min=1e-3))
    targets = F.interpolate(pictures, size=[side * decoder.enlarges for side in latents.shape[-2:]], mode="area")
    trained = [weight for weight in decoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-4)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        loss = (decoder(latents[chosen]) - targets[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        told(step + 1)
    return decoder.eval()


@torch.inference_mode()
def shown_rms(decoder: PreviewDecoder, latents: Tensor, pictures: Tensor) -> float:
    """Root mean square error, of 255, of previews enlarged to the real pictures' size."""
    shown = F.interpolate(decoder(latents).clamp(0, 1), size=pictures.shape[-2:], mode="bicubic").clamp(0, 1)
    return float((shown - pictures).square().mean().sqrt()) * 255
