"""Autoencoders as node packs handle them."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.arch.tiles import Tiling
from sigmagraph.engine.models.load import vae_of_tensors
from sigmagraph.engine.models.value import Vae
from sigmagraph.nodes.support.packs.vae_networks import FirstStage, own_network, with_network
from sigmagraph.nodes.support.packs.weights import StoredWeights

__all__ = ["PackVae", "vae_of"]

TILE, OVERLAP = 64, 16  # of a tile, in latent positions


class PackVae:
    """An autoencoder of ours on a pack's side: pictures [B, H, W, C] in 0..1, latents [B, C, h, w]."""

    output_channels = 3
    latent_dim = 2
    disable_offload = False

    def __init__(self, vae: Any = None, device: torch.device | None = None, *_: Any, sd: Any = None, **__: Any) -> None:
        """Of a value of ours, or of tensors by name (`sd`, also in the first place). Other things are refused."""
        given: Any = vae if sd is None else sd
        if isinstance(given, Mapping) and given:
            given = vae_of_tensors(given, device)
        if not isinstance(given, Vae):
            allowed = "an autoencoder that a loader of this engine gave, or the tensors of one by name"
            raise BadValue("VAE", type(given).__qualname__, allowed)
        self.came = given
        self._network: FirstStage | None = None
        self.latent_channels = given.shape.latent_channels
        self.downscale_ratio = self.upscale_ratio = given.shape.downscale
        self.device, self.output_device = given.placement.device, torch.device("cpu")
        self.vae_dtype = given.placement.dtype

    @property
    def value(self) -> Vae:
        """The value of ours; it computes with the network a pack has had in hand, where one has."""
        return self.came if self._network is None else with_network(self.came, self._network)

    @property
    def first_stage_model(self) -> FirstStage:
        """The network, copied for this pack when it first asks. What becomes of the copy acts here and further on."""
        if self._network is None:
            self._network = own_network(self.came)
        return self._network

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackVae":
        """Another with a network of its own, as packs make one before they change it."""
        made = type(self)(self.came)
        made._network = copy.deepcopy(self._network, memo)
        return made

    def get_sd(self) -> Mapping[str, Tensor]:
        """The weights by the names of weight files, without prefix; each is read when it is asked for."""
        if self._network is not None:
            return self._network.state_dict()
        return StoredWeights(dict(self.came.recipe.weights))

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """The latent of pictures."""
        return self.value.encode(pixel_samples[..., :3])

    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        """The pictures of a latent."""
        return self.value.decode(samples_in)

    def encode_tiled(
        self,
        pixel_samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        **_: Any,
    ) -> Tensor:
        """The same tile by tile; sizes in pixels."""
        side, over = _sides(tile_x, tile_y, overlap, self.downscale_ratio)
        return self.value.encode_in_tiles(pixel_samples[..., :3], Tiling(side, over))

    def decode_tiled(
        self,
        samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        **_: Any,
    ) -> Tensor:
        """The same tile by tile; sizes in latent positions."""
        side, over = _sides(tile_x, tile_y, overlap, 1)
        return self.value.decode_in_tiles(samples, Tiling(side, over))

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        """The middle of pictures, whose sides are multiples of what one latent position covers."""
        for axis in (1, 2):
            whole = pixels.shape[axis] // self.downscale_ratio * self.downscale_ratio
            pixels = pixels.narrow(axis, (pixels.shape[axis] - whole) // 2, whole)
        return pixels

    def process_input(self, image: Tensor) -> Tensor:
        """0..1 as the network takes it."""
        return image * 2.0 - 1.0

    def process_output(self, image: Tensor) -> Tensor:
        """What the network gives as 0..1."""
        return ((image + 1.0) / 2.0).clamp(0.0, 1.0)

    def spacial_compression_encode(self) -> int:
        """Pixels a side of one latent position."""
        return self.downscale_ratio

    spacial_compression_decode = spacial_compression_encode

    def temporal_compression_decode(self) -> None:
        """None: pictures have no time."""

    def throw_exception_if_invalid(self) -> None:
        """Nothing: a file without an autoencoder was refused when it was loaded."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"an autoencoder's {name} is not here for node packs; docs/packs.md says what they can use"
        )


def vae_of(vae: Any) -> Any:
    """The value of ours that a pack's object means."""
    return vae.value if isinstance(vae, PackVae) else vae


def _sides(tile_x: int | None, tile_y: int | None, overlap: int | None, scale: int) -> tuple[int, int]:
    """Side and overlap of a square tile: the smaller of both sides, so that no tile needs more memory than asked."""
    side = min(tile_x or TILE * scale, tile_y or TILE * scale)
    return side, min(OVERLAP * scale if overlap is None else overlap, side // 4)
