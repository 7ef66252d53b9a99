"""Torch modules of the model family: arithmetic and parameter names only; no file, no device, no dtype policy."""

from engine.models.arch.mmdit import MMDiT, MMDiTShape
from engine.models.arch.vae import Autoencoder, VaeShape

__all__ = ["Autoencoder", "MMDiT", "MMDiTShape", "VaeShape"]
