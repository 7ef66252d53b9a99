"""`Model`, `Vae` and `Conditioning` as values: batching, immutability, limits."""

import copy
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor, nn

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Checkpoint, Conditioning, Model, Vae
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.sampling import sd3


class Recorder(nn.Module):
    """A real network that keeps what it was fed."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, []

    def forward(self, x: Tensor, timestep: Tensor, pooled: Tensor, context: Tensor, **options: object) -> Tensor:
        self.calls.append((x, timestep, pooled, context, options))
        velocity: Tensor = self.network(x, timestep, pooled, context, **options)
        return velocity


def conditioning(length: int, seed: int, rows: int = 1) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(rows, length, 96, generator=generator)
    return Conditioning(context, torch.randn(rows, 64, generator=generator))


@pytest.fixture
def recorded(checkpoint: Checkpoint) -> tuple[Model, Recorder]:
    model = checkpoint.model
    recorder = Recorder(model.network)
    return Model(ready(recorder, model.placement), model.spec, model.parameterisation), recorder  # type: ignore[arg-type]


STATE = torch.randn(2, 16, 8, 6, generator=torch.Generator().manual_seed(0))


def test_conditionings_of_one_length_share_a_forward_in_the_order_given(recorded: tuple[Model, Recorder]) -> None:
    model, recorder = recorded
    uncond, cond = conditioning(5, 1), conditioning(5, 2)
    together = model.predict(STATE, 0.7, [uncond, cond])
    ((x, timestep, pooled, context, _),) = recorder.calls
    assert torch.equal(x, torch.cat([STATE, STATE]))
    assert torch.equal(timestep, torch.full((4,), 700.0))
    assert torch.equal(pooled, torch.cat([uncond.pooled] * 2 + [cond.pooled] * 2))
    assert torch.equal(context, torch.cat([uncond.context] * 2 + [cond.context] * 2))
    for one, entry in zip(together, [uncond, cond], strict=True):
        (alone,) = model.predict(STATE, 0.7, [entry])
        torch.testing.assert_close(one, alone, rtol=0, atol=1e-5)


def test_conditionings_of_different_lengths_get_their_own_forwards(recorded: tuple[Model, Recorder]) -> None:
    model, recorder = recorded
    entries = [conditioning(5, 1), conditioning(7, 2), conditioning(5, 3)]
    results = model.predict(STATE, 0.5, entries)
    assert [call[3].shape[:2] for call in recorder.calls] == [(4, 5), (2, 7)]
    for result, entry in zip(results, entries, strict=True):
        torch.testing.assert_close(result, model.predict(STATE, 0.5, [entry])[0], rtol=0, atol=1e-5)


def test_the_timestep_is_a_thousand_sigma_in_float32_whatever_the_shift(recorded: tuple[Model, Recorder]) -> None:
    model, recorder = recorded
    shifted = model.with_parameterisation(sd3(1.5))
    shifted.predict(STATE, 0.8873, [conditioning(5, 1)])
    timestep = recorder.calls[-1][1]
    assert timestep.dtype == torch.float32
    assert timestep[0].item() == torch.tensor(887.3).item()
    assert model.parameterisation == sd3(3.0)


def test_a_batch_of_images_gets_its_own_rows_and_repeats_them_in_turn(checkpoint: Checkpoint) -> None:
    model, state = checkpoint.model, STATE.repeat(2, 1, 1, 1)[:3]
    pair = conditioning(5, 1, rows=2)
    (result,) = model.predict(state, 0.6, [pair])
    for image, row in enumerate([0, 1, 0]):
        one = Conditioning(pair.context[row : row + 1], pair.pooled[row : row + 1])
        (alone,) = model.predict(state[image : image + 1], 0.6, [one])
        torch.testing.assert_close(result[image : image + 1], alone, rtol=0, atol=1e-5)


def test_skipped_layers_belong_to_the_new_value_only(checkpoint: Checkpoint) -> None:
    model, entry = checkpoint.model, conditioning(5, 1)
    before = model.predict(STATE, 0.6, [entry])[0]
    skipped = model.with_skipped_layers([1])
    assert not torch.allclose(skipped.predict(STATE, 0.6, [entry])[0], before)
    assert torch.equal(model.predict(STATE, 0.6, [entry])[0], before)
    assert torch.equal(skipped.with_skipped_layers([]).predict(STATE, 0.6, [entry])[0], before)
    with pytest.raises(BadValue, match="block numbers from 0 to 1"):
        model.with_skipped_layers([2])


def test_a_conditioning_of_another_width_is_refused_with_both_widths(checkpoint: Checkpoint) -> None:
    foreign = Conditioning(torch.zeros(1, 5, 4096), torch.zeros(1, 2048))
    with pytest.raises(BadValue, match=r"\(4096, 2048\) is not allowed; expected \(96, 64\)"):
        checkpoint.model.predict(STATE, 0.5, [foreign])


def test_values_are_frozen(checkpoint: Checkpoint) -> None:
    with pytest.raises(FrozenInstanceError):
        checkpoint.model.skip_layers = frozenset({1})  # type: ignore[misc]


def test_the_latent_format_is_a_round_trip(checkpoint: Checkpoint) -> None:
    fmt = checkpoint.model.spec.latent_format
    torch.testing.assert_close(fmt.to_vae(fmt.to_model(STATE)), STATE)
    assert fmt.to_model(torch.tensor(0.0609)).item() == 0.0
    assert checkpoint.model.spec.pixel_step == 16
    assert checkpoint.model.spec.largest_side == 12 * 16


def test_images_are_cropped_around_their_centre_to_multiples_of_eight(checkpoint: Checkpoint) -> None:
    assert checkpoint.vae is not None
    image = torch.rand(1, 27, 37, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(checkpoint.vae.encode(image), checkpoint.vae.encode(image[:, 1:25, 2:34]))
    with pytest.raises(BadValue, match="at least 8 x 8 pixels"):
        checkpoint.vae.encode(image[:, :7])


def test_an_alpha_channel_is_left_out(checkpoint: Checkpoint) -> None:
    assert checkpoint.vae is not None
    image = torch.rand(1, 16, 16, 4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(checkpoint.vae.encode(image), checkpoint.vae.encode(image[..., :3]))


def test_decoded_images_do_not_depend_on_the_batch_and_stay_within_0_and_1(checkpoint: Checkpoint) -> None:
    assert checkpoint.vae is not None
    latents = 5 * torch.randn(3, 16, 2, 3, generator=torch.Generator().manual_seed(4))
    images = checkpoint.vae.decode(latents)
    assert images.shape == (3, 16, 24, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images[1:2], checkpoint.vae.decode(latents[1:2]))
    with pytest.raises(BadValue, match=r"\[batch, 16, height / 8, width / 8\]"):
        checkpoint.vae.decode(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_16_bit_takes_and_gives_float32(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """What a GPU does with 16-bit files: states, timesteps and results stay float32, the network's weights do not."""
    model, entry = checkpoint.model, conditioning(5, 1)
    (exact,) = model.predict(STATE, 0.7, [entry])
    where = Placement(torch.device("cpu"), dtype)
    half = Model(ready(copy.deepcopy(model.network).to(dtype), where), model.spec, model.parameterisation)
    (rounded,) = half.predict(STATE, 0.7, [entry])
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)
    assert not torch.equal(rounded, exact)
    assert checkpoint.vae is not None
    vae = Vae(ready(copy.deepcopy(checkpoint.vae.network).to(dtype), where), checkpoint.vae.shape)
    image = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(3))
    assert vae.encode(image).dtype == torch.float32
    torch.testing.assert_close(vae.encode(image), checkpoint.vae.encode(image), rtol=0, atol=0.05)
    torch.testing.assert_close(vae.decode(STATE), checkpoint.vae.decode(STATE), rtol=0, atol=0.05)


def test_conditionings_are_zeroed_joined_and_mixed_into_new_ones() -> None:
    a, b = conditioning(5, 1), conditioning(7, 2)
    assert a.zeroed().context.shape == a.context.shape
    assert not a.zeroed().context.any()
    assert not a.zeroed().pooled.any()
    joined = a.followed_by(b)
    assert torch.equal(joined.context, torch.cat([a.context, b.context], dim=1))
    assert torch.equal(joined.pooled, a.pooled)
    mixed = a.mixed(b, 0.25)
    torch.testing.assert_close(mixed.context, 0.25 * a.context + 0.75 * b.context[:, :5])
    torch.testing.assert_close(mixed.pooled, 0.25 * a.pooled + 0.75 * b.pooled)
    longer = b.mixed(a, 0.25).context
    torch.testing.assert_close(longer[:, 5:], 0.25 * b.context[:, 5:])
    with pytest.raises(BadValue, match="two conditionings of the same width"):
        a.followed_by(Conditioning(torch.zeros(1, 5, 3), torch.zeros(1, 64)))
