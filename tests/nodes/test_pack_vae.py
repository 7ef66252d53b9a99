"""Autoencoders in packs' hands: their inside is a copy, acts as ours does, and what a pack changes in it acts too."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sigmagraph.engine.models.load import Checkpoint, load_checkpoint, load_vae
from sigmagraph.engine.models.save import vae_tensors
from sigmagraph.engine.models.value import Vae
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.packs.models import ModelPatcher
from sigmagraph.nodes.support.packs.vaes import PackVae

CROSS: Any = border().translations["VAE"]


@pytest.fixture
def parts(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def vae(parts: Checkpoint) -> Vae:
    assert parts.vae is not None
    return parts.vae


def latent(vae: Vae) -> Tensor:
    return torch.randn(1, vae.shape.latent_channels, 6, 8, generator=torch.Generator().manual_seed(5))


def test_a_look_at_the_network_changes_no_number(vae: Vae) -> None:
    z, image = latent(vae), torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(6))
    held = CROSS.out(vae)
    assert CROSS.back(held) is vae
    stage = held.first_stage_model
    assert stage is held.first_stage_model
    given = CROSS.back(held)
    torch.testing.assert_close(given.decode(z), vae.decode(z), rtol=0, atol=1e-5)
    torch.testing.assert_close(given.encode(image), vae.encode(image), rtol=0, atol=1e-5)
    torch.testing.assert_close(held.process_output(stage.decode(z)).movedim(1, -1), vae.decode(z), rtol=0, atol=1e-5)


def test_circular_convolutions_make_a_decoder_that_rolls_with_its_latent(vae: Vae) -> None:
    """As packs for seamless pictures do: then no column is the first. Ours is as it was, and so is a fresh one."""
    held, z = CROSS.out(vae), latent(vae)
    before = vae.decode(z)
    for layer in held.first_stage_model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = "circular"
    given = CROSS.back(held)
    rolled = given.decode(z.roll(3, dims=3))
    torch.testing.assert_close(rolled, given.decode(z).roll(3 * vae.shape.downscale, dims=2), rtol=0, atol=1e-5)
    assert (rolled - vae.decode(z.roll(3, dims=3))).abs().max() > 1e-3
    assert torch.equal(vae.decode(z), before)
    assert torch.equal(CROSS.out(vae).decode(z), before)


def made_circular(held: Any) -> Vae:
    for layer in held.first_stage_model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = "circular"
    given = CROSS.back(held)
    assert isinstance(given, Vae)
    return given


def test_a_deep_copy_is_changed_alone(vae: Vae) -> None:
    """As packs for seamless pictures do it by default."""
    held, z = CROSS.out(vae), latent(vae)
    given = made_circular(copy.deepcopy(held))
    assert CROSS.back(held) is vae
    copied = copy.deepcopy(CROSS.out(given))
    assert torch.equal(CROSS.back(copied).decode(z), given.decode(z))
    assert not torch.equal(given.decode(z), vae.decode(z))


def test_text_encoders_can_be_copied(parts: Checkpoint) -> None:
    encoders = border().translations["CLIP"]
    copied = copy.deepcopy(encoders.out(parts.clip))
    asked = {"l": [[(3, 1.0), (5, 1.0), (7, 1.0)]]}
    found, expected = (one.encode_from_tokens(asked) for one in (copied, encoders.out(parts.clip)))
    assert torch.equal(found, expected)


def test_a_second_pack_goes_on_from_what_the_first_changed(vae: Vae) -> None:
    z = latent(vae)
    first = made_circular(CROSS.out(vae))
    before, held = first.decode(z), CROSS.out(first)
    held.first_stage_model.decoder.conv_out.bias.data += 0.5
    second = CROSS.back(held)
    inside = (before > 0.001) & (before < 0.749)
    torch.testing.assert_close(second.decode(z)[inside], before[inside] + 0.25, rtol=0, atol=1e-5)
    assert torch.equal(first.decode(z), before)


def test_the_weights_of_a_changed_autoencoder_are_named_as_in_files(vae: Vae, tmp_path: Path) -> None:
    given, z = made_circular(CROSS.out(vae)), latent(vae)
    assert {one.name for one in vae_tensors(given)} == {one.name for one in vae_tensors(vae)}
    place = tmp_path / "saved.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in CROSS.out(given).get_sd().items()}, place)
    assert torch.equal(load_vae(place).decode(z), vae.decode(z))


def test_what_stands_in_the_place_of_a_part_is_asked(vae: Vae) -> None:
    """Hooks on `forward`, and modules set as `decoder`, as for tiles and for compiling."""
    held, z = CROSS.out(vae), latent(vae)
    decoder = held.first_stage_model.decoder
    asked: list[Any] = []
    plain = decoder.forward
    decoder.forward = lambda x: asked.append(x.shape) or plain(x)
    expected = held.decode(z)
    decoder.forward = plain

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * plain(x)

    held.first_stage_model.decoder = Twice()
    assert asked == [z.shape]
    inside = (expected > 0.001) & (expected < 0.999)  # of pictures p, (2 (2 p - 1) + 1) / 2 is shown
    doubled = (2 * expected - 0.5).clamp(0, 1)
    torch.testing.assert_close(held.decode(z)[inside], doubled[inside], rtol=0, atol=1e-5)


def walked(net: Any, x: Tensor, *, is_decoder: bool) -> Tensor:
    """The network run from its parts alone, by the attributes that packs for tiles go by."""

    def block(one: Any, x: Tensor) -> Tensor:
        if one.in_channels == one.out_channels:
            shortcut = x
        else:
            shortcut = one.conv_shortcut(x) if one.use_conv_shortcut else one.nin_shortcut(x)
        hidden = one.conv1(nn.functional.silu(one.norm1(x)))
        return shortcut + one.conv2(nn.functional.silu(one.norm2(hidden)))

    def middle(x: Tensor) -> Tensor:
        x = block(net.mid.block_1, x)
        normed, attention = net.mid.attn_1.norm(x), net.mid.attn_1
        x = x + attention.proj_out(
            attention.optimized_attention(*(part(normed) for part in (attention.q, attention.k, attention.v)))
        )
        return block(net.mid.block_2, x)

    x = net.conv_in(x)
    x = middle(x) if is_decoder else x
    for level in reversed(range(net.num_resolutions)) if is_decoder else range(net.num_resolutions):
        place = (net.up if is_decoder else net.down)[level]
        assert len(place.attn) == 0
        for at in range(net.num_res_blocks + is_decoder):
            x = block(place.block[at], x)
        if is_decoder and level > 0:
            x = place.upsample(x)
        if not is_decoder and level < net.num_resolutions - 1:
            x = place.downsample(x)
    x = x if is_decoder else middle(x)
    return net.conv_out(nn.functional.silu(net.norm_out(x)))


def test_the_parts_carry_what_packs_for_tiles_go_by(vae: Vae) -> None:
    stage, z = CROSS.out(vae).first_stage_model, latent(vae)
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(7)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(walked(stage.decoder, z, is_decoder=True), stage.decode(z), rtol=0, atol=1e-5)
        moments = walked(stage.encoder, image, is_decoder=False)
        torch.testing.assert_close(moments.chunk(2, dim=1)[0], stage.encode(image), rtol=0, atol=1e-5)
    assert (stage.decoder.give_pre_end, stage.decoder.tanh_out) == (False, False)


def test_a_latent_is_drawn_where_a_pack_asks_for_that(vae: Vae) -> None:
    """Mean and spread of many draws are those of the distribution."""
    stage = CROSS.out(vae).first_stage_model
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(8)) * 2 - 1
    with torch.no_grad():
        mean, log_variance = stage.encoder(image).chunk(2, dim=1)
        stage.regularization.sample = True
        torch.manual_seed(0)
        drawn = stage.encode(image.expand(4096, -1, -1, -1))
    deviation = (log_variance / 2).exp()
    assert (((drawn.mean(0) - mean[0]) / deviation[0]).abs() < 6 / 64).all()
    torch.testing.assert_close(drawn.std(0), deviation[0], rtol=0.1, atol=0)


def test_weights_are_read_blended_and_made_an_autoencoder(vae: Vae, parts: Checkpoint, tmp_path: Path) -> None:
    held, z = CROSS.out(vae), latent(vae)
    weights = held.get_sd()
    assert "decoder.conv_in.weight" in weights
    other = {name: 0.5 * tensor for name, tensor in weights.items()}
    same = PackVae(sd=dict(weights), device=None, dtype=torch.float32)
    assert torch.equal(CROSS.back(same).decode(z), vae.decode(z))
    merged = PackVae(sd={name: torch.lerp(weights[name], other[name], 0.5) for name in weights})
    made = CROSS.back(merged).recipe.network.state_dict()
    expected = 0.75 * weights["decoder.conv_in.weight"].float()
    torch.testing.assert_close(made["decoder.conv_in.weight"], expected, rtol=1e-3, atol=1e-6)
    assert CROSS.back(PackVae(sd={"pixel_space_vae": torch.tensor(1.0)})).shape.downscale == 1
    whole = ModelPatcher(parts.model).state_dict_for_saving(None, weights)
    save_file({name: tensor.contiguous() for name, tensor in whole.items()}, tmp_path / "all.safetensors")
    assert torch.equal(load_vae(tmp_path / "all.safetensors").decode(z), vae.decode(z))
