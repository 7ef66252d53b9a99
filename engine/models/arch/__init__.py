"""Torch modules of the model family: arithmetic and parameter names only; no file, no device, no dtype policy."""

from sigmagraph.engine.models.arch.controlnet import ControlShape, JointControlNet, StreamControlNet
from sigmagraph.engine.models.arch.mmdit import MMDiT, MMDiTShape
from sigmagraph.engine.models.arch.vae import Autoencoder, VaeShape

__all__ = [
    "Autoencoder",
    "ControlShape",
    "JointControlNet",
    "MMDiT",
    "MMDiTShape",
    "StreamControlNet",
    "VaeShape",
]
