"""The names of the model folders that ComfyUI's users, packs and clients know; each lies below `models/`."""

__all__ = ["CODE_FOLDERS", "MODEL_FOLDERS"]

MODEL_FOLDERS = (
    "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models",
    "embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models", "latent_upscale_models",
    "custom_nodes", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders",
)  # fmt: skip
"""The order is ComfyUI's; `clip` and `unet` are older names of `text_encoders` and `diffusion_models`."""
CODE_FOLDERS = frozenset({"configs", "custom_nodes"})
"""Those that hold no weights, which a model library does not show."""
