"""Random models made and saved by diffusers: our loader and modules must give its outputs."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from sigmagraph.engine.models import load_diffusion_model, load_vae


@pytest.mark.parametrize(("qk_norm", "dual"), [(None, ()), ("rms_norm", ()), ("rms_norm", (0, 1))])
def test_a_transformer_that_diffusers_saved_in_shards_gives_its_velocity(
    tmp_path: Path, qk_norm: str | None, dual: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    theirs = SD3Transformer2DModel(
        sample_size=32,
        num_layers=3,
        attention_head_dim=64,
        num_attention_heads=2,
        joint_attention_dim=80,
        caption_projection_dim=128,
        pooled_projection_dim=48,
        out_channels=16,
        pos_embed_max_size=24,
        dual_attention_layers=dual,
        qk_norm=qk_norm,
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    theirs.save_pretrained(tmp_path, max_shard_size="2MB")
    ours = load_diffusion_model(tmp_path).network
    x, context, pooled = torch.randn(2, 16, 10, 12), torch.randn(2, 7, 80), torch.randn(2, 48)
    timestep = torch.tensor([300.0, 887.3])
    with torch.no_grad():
        expected = theirs(x, encoder_hidden_states=context, pooled_projections=pooled, timestep=timestep).sample
        torch.testing.assert_close(ours(x, timestep, pooled, context), expected, rtol=0, atol=1e-4)


def test_a_vae_that_diffusers_saved_encodes_and_decodes_as_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoencoderKL(
        latent_channels=16,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_vae(tmp_path).network
    latent, image = torch.randn(1, 16, 4, 6), torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(latent), theirs.decode(latent).sample, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.encode(image)[0], theirs.encode(image).latent_dist.mean, rtol=0, atol=1e-4)
