"""Fit the linear map from SD3 latents to colours that previews use, through any checkpoint's VAE.

    python -m benchmarks.fit_latent_rgb models/checkpoints/sigmagraph-demo.safetensors

Random pictures (smooth colour fields, shapes) are encoded; each latent pixel is regressed by least squares onto the
mean colour of the 8 x 8 pixels it stands for. Writes
nodes/latents/latent_rgb.json, prints how much of the colour it explains.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sigmagraph.engine.models import load_checkpoint

SIDE, PICTURES, SEED = 128, 96, 20260101


def random_pictures(count: int, generator: torch.Generator) -> Tensor:
    """Pictures [count, SIDE, SIDE, 3] in 0..1: blends of smooth fields of different grain, half with flat boxes."""
    made = torch.zeros(count, 3, SIDE, SIDE)
    for grain in (2, 4, 8, 16):
        field = torch.rand(count, 3, grain, grain, generator=generator)
        made += F.interpolate(field, SIDE, mode="bicubic") * torch.rand(count, 1, 1, 1, generator=generator)
    low, high = made.amin((1, 2, 3), keepdim=True), made.amax((1, 2, 3), keepdim=True)
    made = (made - low) / (high - low)
    for picture in made[::2]:
        for _ in range(6):
            x, y, size = (int(v) for v in torch.randint(8, SIDE - 40, (3,), generator=generator))
            colour = torch.rand(3, 1, 1, generator=generator)
            picture[:, y : y + 8 + size // 2, x : x + 8 + size // 2] = colour
    return made.permute(0, 2, 3, 1)


def fit(path: Path) -> dict[str, object]:
    """Weights [16, 3] and offset [3] from latents in model units to colours."""
    model, _, vae = load_checkpoint(path)
    assert vae is not None
    pictures = random_pictures(PICTURES, torch.Generator().manual_seed(SEED))
    with torch.inference_mode():
        latents = torch.cat([vae.encode(batch) for batch in pictures.split(8)]).float()
    latents = model.spec.latent_format.to_model(latents)
    colours = F.avg_pool2d(pictures.permute(0, 3, 1, 2), SIDE // latents.shape[-1])
    rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).double()
    targets = colours.permute(0, 2, 3, 1).reshape(-1, 3).double()
    design = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(design, targets).solution
    left = ((design @ solution - targets) ** 2).sum(0)
    explained = 1 - left / ((targets - targets.mean(0)) ** 2).sum(0)
    print(f"{path.name}: {len(rows)} latent pixels; explained variance r g b = {explained.tolist()}")
    rounded = [[round(v, 5) for v in row] for row in solution.tolist()]
    return {"weights": rounded[:-1], "offset": rounded[-1], "fitted_on": path.name}


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "nodes" / "latents" / "latent_rgb.json"
    target.write_text(json.dumps(fit(Path(sys.argv[1])), indent=1) + "\n", "utf-8")
