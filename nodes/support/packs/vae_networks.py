"""The inside of an autoencoder as node packs look into it and change it: a copy of the network, which is then theirs.

Names and attributes are those of latent diffusion's autoencoders, which ours shares with its weight files.
"""

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from sigmagraph.engine.models.arch.vae import Autoencoder, Decoder, Encoder, Level, ResidualBlock, SpatialAttention
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.value import Vae

__all__ = ["FirstStage", "own_network", "with_network"]


class FirstStage(nn.Module):
    """`first_stage_model`: encoder and decoder, which a pack may look at, hook, compile or put others in the place of.

    With `regularization.sample` a latent is drawn from its distribution; without, as from the start, it is the mean.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        own = copy.deepcopy(network)
        for module in own.modules():
            _told(module)
        self.downscale = network.downscale
        self.encoder, self.decoder = own.encoder, own.decoder
        self.regularization = SimpleNamespace(sample=False)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in -1..1 -> latents."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        if not self.regularization.sample:
            return cast(Tensor, mean)
        deviation = (log_variance.clamp(-30.0, 20.0) / 2).exp()
        return cast(Tensor, mean + deviation * torch.randn_like(mean))

    def decode(self, z: Tensor) -> Tensor:
        """Latents -> pictures [B, 3, 8h, 8w], about -1..1."""
        return cast(Tensor, self.decoder(z))

    def forward(self, x: Tensor) -> Tensor:
        """There and back."""
        return self.decode(self.encode(x))


class _Coder(nn.Module):
    """The same as autoencoders of ours compute: whole pictures, since strips would pass by what a pack changed."""

    def __init__(self, stage: FirstStage) -> None:
        super().__init__()
        self.stage = stage
        self.downscale = stage.downscale

    def encode(self, image: Tensor) -> tuple[Tensor, None]:
        return self.stage.encode(image), None

    def decode(self, latent: Tensor) -> Tensor:
        return self.stage.decode(latent)


def own_network(vae: Vae) -> FirstStage:
    """A copy of an autoencoder's network, with what other packs changed in it. Raises `AttributeError` without one."""
    with vae.recipe.use() as network:
        held: nn.Module = network
        if isinstance(held, _Coder):
            return copy.deepcopy(held.stage)
        if not isinstance(held, Autoencoder):
            raise AttributeError(f"first_stage_model of {vae.recipe.what} is not here for node packs")
        return FirstStage(held)


def with_network(vae: Vae, stage: FirstStage) -> Vae:
    """The autoencoder that computes with a network a pack has had in hand. Its weights are named as in files."""
    recipe = Recipe.of(_Coder(stage), vae.placement, vae.recipe.owner, "vae")
    named = {name.removeprefix("stage."): stored for name, stored in recipe.base.items()}
    return replace(vae, recipe=cast(Any, replace(recipe, base=named)))


def _told(module: nn.Module) -> None:
    """Give a module what packs read of modules of its kind beside its layers."""
    more: dict[str, Any] = {}
    match module:
        case ResidualBlock():
            more = {
                "in_channels": module.conv1.in_channels,
                "out_channels": module.conv1.out_channels,
                "use_conv_shortcut": False,
            }
        case SpatialAttention():
            more = {"in_channels": module.q.in_channels, "optimized_attention": _attended}
        case Level():
            more = {"attn": nn.ModuleList()}
        case Encoder():
            more = {"num_resolutions": len(module.down), "num_res_blocks": _blocks(module.down)}
        case Decoder():
            more = {"num_resolutions": len(module.up), "num_res_blocks": _blocks(module.up) - 1}
            more |= {"give_pre_end": False, "tanh_out": False}
    for name, value in more.items():
        setattr(module, name, value)


def _blocks(levels: nn.ModuleList) -> int:
    return len(cast(Level, levels[0]).block)


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over all positions of feature maps [B, C, h, w]."""
    asked, keys, values = (part.flatten(2).mT.contiguous().unsqueeze(1) for part in (q, k, v))
    mixed = nn.functional.scaled_dot_product_attention(asked, keys, values)
    shaped: Tensor = mixed.squeeze(1).transpose(1, 2).unflatten(2, q.shape[-2:])
    return shaped
