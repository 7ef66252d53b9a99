"""Changed attention: diffusers' perturbed attention, and what each change is at the ends of its parameters."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import PAGJointAttnProcessor2_0
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.arch.attention_changes import (
    IdentityAttention,
    NormalizedAttention,
    SmoothedAttention,
)
from sigmagraph.engine.models.arch.mmdit import attend
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.models.spec import LatentFormat, ModelSpec
from sigmagraph.engine.sampling import sd3
from tests.weights import drawn_weights

SHAPE = MMDiTShape(3, 128, 8, 16, 8, dual_attention_blocks=frozenset({0}))
GRID = (3, 4)
ALL = frozenset(range(3))


def tiny_model(shape: MMDiTShape = SHAPE) -> Model:
    """A random transformer with a dual block; its text may be of any length."""
    network = MMDiT(shape)
    network.load_state_dict(drawn_weights(shape))
    placed = Placement(torch.device("cpu"), torch.float32)
    return Model(ready(network.eval(), placed), ModelSpec(shape, "tiny", sd3(3.0), LatentFormat()), sd3(3.0))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text(length: int, seed: int) -> Conditioning:
    return Conditioning(drawn(1, length, 16, seed=seed), drawn(1, 8, seed=seed + 1))


def projected(tokens: int, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k, v of two images with two heads, float64."""
    q, k, v = (drawn(2, tokens, 2, 64, seed=seed).double() for seed in range(3))
    return q[:, tokens - queries :], k, v


def test_perturbed_attention_is_that_of_diffusers(tmp_path: Any) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_attention_heads": 2, "joint_attention_dim": 80, "caption_projection_dim": 128}
    sizes |= {"pooled_projection_dim": 48, "out_channels": 16, "pos_embed_max_size": 24, "attention_head_dim": 64}
    theirs = SD3Transformer2DModel(sample_size=32, num_layers=3, qk_norm=None, dual_attention_layers=(), **sizes).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    theirs.save_pretrained(tmp_path)
    ours = load_diffusion_model(tmp_path).network
    x, context, pooled = drawn(1, 16, 10, 12), drawn(1, 7, 80), drawn(1, 48)
    timestep = torch.tensor([300.0])
    for blocks in ({1}, {0, 2}):
        theirs.set_attn_processor(  # the second half of a batch is perturbed
            {
                name: PAGJointAttnProcessor2_0() if int(name.split(".")[1]) in blocks else one
                for name, one in SD3Transformer2DModel(
                    sample_size=32, num_layers=3, qk_norm=None, dual_attention_layers=(), **sizes
                ).attn_processors.items()
            }
        )
        twice = [torch.cat([one, one]) for one in (x, context, pooled, timestep)]
        with torch.no_grad():
            plain, perturbed = theirs(
                twice[0], encoder_hidden_states=twice[1], pooled_projections=twice[2], timestep=twice[3]
            ).sample.split(1)
            found = ours(x, timestep, pooled, context, attention=IdentityAttention(frozenset(blocks)))
        torch.testing.assert_close(found, perturbed, rtol=0, atol=1e-4)
        assert not torch.allclose(perturbed, plain, atol=1e-2)


@pytest.mark.parametrize(("text_tokens", "queries"), [(5, 17), (5, 12), (0, 12)])
def test_image_tokens_of_identity_attention_are_masked_from_each_other(text_tokens: int, queries: int) -> None:
    q, k, v = projected(12 + text_tokens, queries)
    mask = torch.zeros(12 + text_tokens, 12 + text_tokens, dtype=torch.bool)
    mask[text_tokens:, text_tokens:] = ~torch.eye(12, dtype=torch.bool)
    scores = torch.einsum("bnhd,blhd->bhnl", q, k) / 8
    scores = scores.masked_fill(mask[-queries:], -math.inf)
    expected = torch.einsum("bhnl,blhd->bnhd", scores.softmax(-1), v).flatten(2)
    torch.testing.assert_close(IdentityAttention(ALL).mix(q, k, v, GRID), expected)
    if text_tokens == 0:
        torch.testing.assert_close(expected, v.flatten(2))


@pytest.mark.parametrize("deviation", [0.0, 1.0, 3.0, math.inf])
def test_queries_are_blurred_by_scipys_gaussian(deviation: float) -> None:
    q, k, v = projected(17, 17)
    image = q[:, 5:].unflatten(1, GRID).numpy()
    for axis, side in ((1, 3), (2, 4)):
        if math.isinf(deviation):
            image = np.broadcast_to(image.mean(axis, keepdims=True), image.shape)
        elif deviation:
            reach = min(math.ceil(3 * deviation), side - 1)
            image = gaussian_filter1d(image, deviation, axis=axis, mode="mirror", radius=reach)
    blurred = torch.cat([q[:, :5], torch.from_numpy(np.array(image)).flatten(1, 2)], dim=1)
    found = SmoothedAttention(ALL, deviation).mix(q, k, v, GRID)
    torch.testing.assert_close(found, attend(blurred, k, v), rtol=1e-6, atol=1e-6)


def test_normalised_attention_between_two_texts_ends_at_each_of_them() -> None:
    network, x, pooled = tiny_model().network, drawn(2, 16, 6, 8), drawn(2, 8)
    negative, positive, timestep = drawn(2, 5, 16, seed=1), drawn(2, 3, 16, seed=2), torch.tensor([300.0, 700.0])
    both = torch.cat([negative, positive], dim=1)

    def between(scale: float, tau: float = math.inf, alpha: float = 1.0) -> Tensor:
        change = NormalizedAttention(ALL, 5, scale, tau, alpha)
        found: Tensor = network(x, timestep, pooled, both, attention=change)
        return found

    with torch.no_grad():
        at_positive, at_negative = (network(x, timestep, pooled, one) for one in (positive, negative))
        torch.testing.assert_close(between(1.0), at_positive, rtol=0, atol=1e-5)
        torch.testing.assert_close(between(5.0, alpha=0.0), at_positive, rtol=0, atol=1e-5)
        torch.testing.assert_close(between(0.0), at_negative, rtol=0, atol=1e-5)
        assert not torch.allclose(between(5.0, 2.5, 0.25), at_positive, atol=1e-2)


def test_guided_features_are_at_most_tau_times_as_long() -> None:
    rule = NormalizedAttention(ALL, 1, scale=9.0, tau=1.5, alpha=1.0)
    positive, negative = drawn(2, 5, 64), drawn(2, 5, 64, seed=1)
    ratio = rule.guided(positive, negative).abs().sum(-1) / positive.abs().sum(-1)
    assert float(ratio.max()) == pytest.approx(1.5, rel=1e-5)
    torch.testing.assert_close(rule.guided(positive, positive), positive)


def test_a_model_with_changed_attention_is_a_value_of_its_own() -> None:
    model, x = tiny_model(), drawn(2, 16, 6, 8)
    changed = model.with_attention(IdentityAttention(frozenset({1})))
    before = model.predict(x, 0.6, [text(5, 1)])[0]
    assert not torch.allclose(changed.predict(x, 0.6, [text(5, 1)])[0], before, atol=1e-3)
    assert torch.equal(model.predict(x, 0.6, [text(5, 1)])[0], before)
    assert changed.joins(x) != model.joins(x)
    assert changed.fingerprint != model.fingerprint
    with pytest.raises(BadValue, match="attention of block.*3.*from 0 to 2"):
        model.with_attention(IdentityAttention(frozenset({3})))
