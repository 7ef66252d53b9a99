"""How far one latent is from another."""

from torch import Tensor

from sigmagraph.engine.errors import BadValue

__all__ = ["relative_distance"]


def relative_distance(latent: Tensor, reference: Tensor) -> float:
    """Root mean square difference of two latents [B, C, h, w], in units of the reference's own spread."""
    if latent.shape != reference.shape:
        raise BadValue("samples", list(latent.shape), f"the reference's shape {list(reference.shape)}")
    unit = reference.std()
    return float((latent - reference).square().mean().sqrt() / unit) if unit > 0 else float((latent - reference).norm())
