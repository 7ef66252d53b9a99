"""Models as values: `load_checkpoint` and its siblings read files; `Model`, `Clip` and `Vae` travel in graphs."""

from engine.models.conditioning import Conditioning
from engine.models.files.lora import Adapter, load_adapter
from engine.models.load import Checkpoint, load_checkpoint, load_diffusion_model, load_text_encoders, load_vae
from engine.models.spec import LatentFormat, ModelSpec
from engine.models.text.clip import Clip
from engine.models.value import Model, Vae

__all__ = [
    "Adapter",
    "Checkpoint",
    "Clip",
    "Conditioning",
    "LatentFormat",
    "Model",
    "ModelSpec",
    "Vae",
    "load_adapter",
    "load_checkpoint",
    "load_diffusion_model",
    "load_text_encoders",
    "load_vae",
]
