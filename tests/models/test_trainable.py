"""Low-rank changes of a network: nothing at first, with right gradients, and saved as an adapter that says the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import load_adapter
from sigmagraph.engine.models.trainable import Trainable, trainable
from sigmagraph.engine.sampling import Cfg, PhiloxNoise, Sampling, Trajectory
from tests.models.test_attention_changes import drawn, text, tiny_model

X, PROMPT = drawn(2, 16, 6, 8), text(5, 1)


def moved(found: Trainable) -> Trainable:
    """With its second matrices off zero."""
    for place, parameter in enumerate(found.parameters()):
        parameter.data = drawn(*parameter.shape, seed=place) * 0.05
    return found


def test_at_first_it_is_the_model_itself_and_the_model_is_never_changed() -> None:
    model = tiny_model()
    plain = model.predict(X, 0.6, [PROMPT])[0]
    found = trainable(model, rank=2)
    with torch.inference_mode():  # layers beside each other are not made into one product, so the last bits may differ
        torch.testing.assert_close(found.model.predict(X, 0.6, [PROMPT])[0], plain, rtol=0, atol=1e-5)
    assert not torch.allclose(moved(found).model.predict(X, 0.6, [PROMPT])[0], plain, atol=1e-2)
    assert torch.equal(model.predict(X, 0.6, [PROMPT])[0], plain)
    assert all(parameter.requires_grad for parameter in found.parameters())
    learnt = {id(one) for one in found.parameters()}
    assert not any(one.requires_grad for one in found.model.network.parameters() if id(one) not in learnt)


def test_gradients_of_log_probabilities_through_guidance_are_those_of_finite_differences() -> None:
    found = moved(trainable(tiny_model(), rank=2))
    model = found.model
    for module in model.network.modules():
        module.double()
    model.network.pos_embed.data = model.network.pos_embed.data.double()
    guided = Cfg(model.predict, PROMPT, text(4, 3), 2.0)
    levels = [1.0, 0.7, 0.3, 0.0]
    latent = torch.zeros(1, 16, 6, 8, dtype=torch.float64)
    options = {"sde_end_step": 2}
    run = Sampling(guided, latent, levels, model.parameterisation, "flow_grpo", noise=PhiloxNoise(1), options=options)
    way = Trajectory()
    run.run(on_tick=way.add)

    def total() -> Tensor:
        again = Trajectory()
        for tick in replace(run, gradients=True).along(way.x):
            again.add(tick)
        return again.log_probs(per_element=True).sum()

    total().backward()
    chosen = next(one for one in found.parameters() if one.grad is not None and one.grad.abs().max() > 0)
    assert chosen.grad is not None
    place = int(chosen.grad.abs().argmax())
    ends = []
    for step in (1e-3, -1e-3):
        chosen.data.view(-1)[place] += step
        ends.append(float(total().detach()))
        chosen.data.view(-1)[place] -= step
    assert float(chosen.grad.view(-1)[place]) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=2e-2)


def test_what_was_learnt_is_an_adapter_of_the_model_it_came_from(tmp_path: Path) -> None:
    model = tiny_model()
    found = moved(trainable(model, rank=2))
    found.save(tmp_path / "learnt.safetensors")
    adapter = load_adapter(tmp_path / "learnt.safetensors")
    assert len(model.fitting(adapter)) == len(found.changes)
    assert adapter.unknown == ()
    again = model.with_adapter(adapter, 1.0).predict(X, 0.6, [PROMPT])[0]
    torch.testing.assert_close(again, found.model.predict(X, 0.6, [PROMPT])[0], rtol=0, atol=1e-4)


def test_without_gradients_asked_for_there_are_none_and_bad_settings_are_named() -> None:
    found = trainable(tiny_model())
    with torch.inference_mode():
        assert not found.model.predict(X, 0.6, [PROMPT])[0].requires_grad
    assert found.model.predict(X, 0.6, [PROMPT])[0].requires_grad
    with pytest.raises(BadValue, match="rank.*from 1"):
        trainable(tiny_model(), rank=0)
    with pytest.raises(BadValue, match=r"linears.*attn\.qkv"):
        trainable(tiny_model(), linears=["to_q"])
