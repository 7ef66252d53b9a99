"""Functions of packs round a run and within the network: told what they expect, and nothing else changes."""

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.compose.shims import patching
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.cache.checkpoint import Checkpoints
from sigmagraph.engine.models import Conditioning, Model
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.kept_predictions import KeptPredictions
from sigmagraph.nodes.support.packs.guidance import calc_cond_batch
from sigmagraph.nodes.support.packs.models import ModelPatcher, model_of
from sigmagraph.nodes.support.types import LatentValue
from tests.models.test_attention_changes import text, tiny_model

NAMES = patching.names()["comfy.patcher_extension"]
PLACE, MOMENT = NAMES["WrappersMP"], NAMES["CallbacksMP"]
POSITIVE, NEGATIVE = text(5, 1), text(5, 7)
X = torch.randn(2, 16, 6, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def guided(model: Model, x: Tensor = X) -> Tensor:
    return model.guided(POSITIVE, NEGATIVE, 4.0)(x, 0.7).denoised


def run(model: Model, **more: Any) -> Tensor:
    latent = LatentValue(X * 0)
    sides: dict[str, Conditioning] = {"positive": POSITIVE, "negative": NEGATIVE}
    named = {"latent_image": latent, "scheduler": "simple", "sampler_name": "dpmpp_2m_sde", "cfg": 4.0} | more
    made: Tensor = NODES["KSampler"](model=model, seed=3, steps=4, **named, **sides).samples
    return made


def through(place: str, seen: list[Any]) -> Any:
    """A wrapper that goes on with what it was given, and notes it."""

    def wrapper(executor: Any, *given: Any, **named: Any) -> Any:
        seen.append((place, executor.class_obj, given, named))
        return executor(*given, **named)

    return wrapper


def patched(model: Model, patch: Any, number: int = 1) -> Model:
    patcher = ModelPatcher(model).clone()
    patcher.set_model_patch_replace(patch, "dit", "double_block", number)
    made: Model = model_of(patcher)
    return made


def test_a_patch_that_asks_the_block_changes_nothing_and_one_that_does_not_skips_it(model: Model) -> None:
    for number in range(3):
        same = patched(model, lambda args, extra: extra["original_block"](args), number)
        skips = patched(model, lambda args, extra: args, number)
        torch.testing.assert_close(guided(same), guided(model), atol=0, rtol=0)
        torch.testing.assert_close(guided(skips), guided(model.with_skipped_layers([number])), atol=0, rtol=0)
    doubled = patched(model, lambda args, extra: {**args, "img": args["img"] * 2})
    assert not torch.allclose(guided(doubled), guided(skips))


def test_a_patch_knows_whose_rows_it_has(model: Model) -> None:
    """Skipped for the negative side alone it is guidance whose negative side skips the block."""

    def patch(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        told = extra["transformer_options"]
        sides = told["cond_or_uncond"]
        assert told["block"] == ("double_block", 1)
        assert told["sigmas"].tolist() == pytest.approx([0.7] * 2, abs=1e-3)
        made: dict[str, Tensor] = extra["original_block"](args)
        rows = torch.tensor(sides).repeat_interleave(len(args["img"]) // len(sides))[:, None, None].bool()
        return {"img": torch.where(rows, args["img"], made["img"]), "txt": torch.where(rows, args["txt"], made["txt"])}

    (cond,) = model.predict(X, 0.7, [POSITIVE])
    (uncond,) = model.with_skipped_layers([1]).predict(X, 0.7, [NEGATIVE])
    torch.testing.assert_close(guided(patched(model, patch)), uncond + (cond - uncond) * 4.0, atol=1e-4, rtol=1e-4)


def test_patches_hold_for_each_image_of_a_batch_and_beside_other_rules(model: Model) -> None:
    half = patched(model, lambda args, extra: {"img": args["img"] / 2, "txt": args["txt"]})
    alone = torch.cat([guided(half, one) for one in X.split(1)])
    torch.testing.assert_close(guided(half), alone, atol=1e-4, rtol=1e-4)
    rules = {"nag_scale": 3.0, "nag_alpha": 0.5, "nag_tau": 2.0}
    both, rule = (NODES["NAGuidance"](model=one, **rules) for one in (half, model))
    assert not torch.allclose(guided(both), guided(rule))
    assert not torch.allclose(guided(both), guided(half))


def test_estimates_that_a_pack_asks_for_follow_its_patches(model: Model) -> None:
    skip = patching.names()["comfy.model_patcher"]["set_model_options_patch_replace"]
    options = skip({"transformer_options": {}}, lambda args, extra: args, "dit", "double_block", 2)
    (found,) = calc_cond_batch(ModelPatcher(model).model, [[[POSITIVE.context, {"pooled_output": POSITIVE.pooled}]]],
                               X, torch.full((2,), 0.7), options)  # fmt: skip
    torch.testing.assert_close(found, model.with_skipped_layers([2]).predict(X, 0.7, [POSITIVE])[0], atol=0, rtol=0)


@pytest.mark.parametrize("place", [("double_block", 3), ("single_block", 0), ("double_block", -1), "middle"])
def test_a_block_that_is_not_there_is_refused_by_its_place(model: Model, place: Any) -> None:
    patcher = ModelPatcher(model)
    patcher.model_options["transformer_options"]["patches_replace"] = {"dit": {place: lambda *_: None}}
    with pytest.raises(BadValue, match="patches_replace of dit") as caught:
        model_of(patcher)
    assert "from 0 to 2" in str(caught.value)


def test_every_place_is_surrounded_in_order_and_the_numbers_stay(model: Model) -> None:
    seen: list[Any] = []
    patcher = ModelPatcher(model)
    places = ("outer_sample", "prepare_sampling", "predict_noise", "calc_cond_batch", "apply_model", "diffusion_model")
    for place in places:
        patcher.add_wrapper_with_key(place, "mine", through(place, seen))
    torch.testing.assert_close(run(model_of(patcher)), run(model), atol=2e-5, rtol=1e-4)
    order = [place for place, *_ in seen]
    assert order[:2] == ["prepare_sampling", "outer_sample"]
    assert order[2:8] == ["predict_noise", "calc_cond_batch", "apply_model", "diffusion_model", "apply_model", order[7]]
    by_place = {place: (owner, given, named) for place, owner, given, named in seen}
    guider, given, named = by_place["outer_sample"]
    assert guider.cfg == 4.0
    assert len(given) == 8
    assert named == {"latent_shapes": [(2, 16, 6, 8)]}
    assert given[3].tolist()[-1] == 0
    assert given[7] == 3
    _, (x, timestep, context, pooled, _, told), _ = by_place["diffusion_model"]
    assert x.shape == X.shape
    assert context.shape[-1] == 16
    assert pooled.shape[-1] == 8
    torch.testing.assert_close(timestep / 1000, told["sigmas"], atol=1e-3, rtol=0)
    assert told["sample_sigmas"].tolist() == given[3].tolist()


def test_the_first_is_outermost_and_one_key_can_be_taken_away(model: Model) -> None:
    def by(factor: float, more: float) -> Any:
        return lambda executor, *given, **named: executor(*given, **named) * factor + more

    first, second = ModelPatcher(model), ModelPatcher(model)
    first.add_wrapper_with_key(PLACE.PREDICT_NOISE, "a", by(2, 0))
    first.add_wrapper(PLACE.PREDICT_NOISE, by(1, 3))
    torch.testing.assert_close(guided(model_of(first)), (guided(model) + 3) * 2, atol=1e-4, rtol=1e-4)
    later = ModelPatcher(model_of(first))  # in another node, possibly of another pack
    assert later.get_wrappers(PLACE.PREDICT_NOISE, "a") == first.get_wrappers(PLACE.PREDICT_NOISE, "a")
    assert model_of(later) is not None
    assert model_of(later.clone()) is later.came[0]
    later.remove_wrappers_with_key(PLACE.PREDICT_NOISE, "a")
    torch.testing.assert_close(guided(model_of(later)), guided(model) + 3, atol=1e-4, rtol=1e-4)
    assert len(first.get_all_wrappers(PLACE.PREDICT_NOISE)) == 2
    assert not second.wrappers
    later.remove_wrappers_with_key(PLACE.PREDICT_NOISE, None)
    assert torch.equal(guided(model_of(later)), guided(model))


def test_wrappers_inside_change_what_they_say(model: Model) -> None:
    def halved(executor: Any, *given: Any, **named: Any) -> Tensor:
        made: Tensor = executor(*given, **named)
        return made / 2

    outputs = {}
    for place in (PLACE.APPLY_MODEL, PLACE.DIFFUSION_MODEL):
        patcher = ModelPatcher(model)
        patcher.add_wrapper_with_key(place, "half", halved)
        outputs[place] = guided(model_of(patcher))
    torch.testing.assert_close(outputs[PLACE.APPLY_MODEL], guided(model) / 2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs[PLACE.DIFFUSION_MODEL], (guided(model) + X) / 2, atol=1e-4, rtol=1e-4)


def test_what_a_run_adds_is_gone_after_it(model: Model) -> None:
    """As one of KJNodes does: round the whole run, and there round each answer."""
    levels: list[float] = []

    def outer(executor: Any, *given: Any, **named: Any) -> Tensor:
        def answer(within: Any, x: Tensor, t: Tensor, *rest: Any, **more: Any) -> Tensor:
            levels.append(float(t[0]))
            made: Tensor = within(x, t, *rest, **more)
            return made * 0

        found = executor.class_obj.model_options["transformer_options"]["wrappers"]
        found.setdefault(PLACE.APPLY_MODEL, {})["mine"] = [answer]
        made: Tensor = executor(*given, **named)
        return made + 1

    patcher = ModelPatcher(model)
    patcher.add_wrapper_with_key(PLACE.OUTER_SAMPLE, "mine", outer)
    value = model_of(patcher)
    for _ in range(2):  # the second finds nothing of the first
        levels.clear()
        made = run(value)
        torch.testing.assert_close(made, torch.full_like(made, float(made.flatten()[0])), atol=1e-4, rtol=0)
        assert len(levels) == 8
        assert PLACE.APPLY_MODEL not in ModelPatcher(value).wrappers


def test_a_run_in_two_parts_is_one(model: Model) -> None:
    def halves(
        executor: Any, noise: Any, latent: Any, sampler: Any, sigmas: Tensor, *rest: Any, **named: Any
    ) -> Tensor:
        made: Tensor = executor(noise, latent, sampler, sigmas[:3], *rest, **named)
        again: Tensor = executor(noise * 0, made, sampler, sigmas[2:], *rest, **named)
        return again

    patcher = ModelPatcher(model)
    patcher.add_wrapper_with_key(PLACE.OUTER_SAMPLE, "halves", halves)
    for sampler in ("euler", "heun"):
        made, whole = (run(one, sampler_name=sampler) for one in (model_of(patcher), model))
        torch.testing.assert_close(made, whole, atol=1e-4, rtol=1e-3)


def test_runs_are_heard_of_and_end_with_an_error_too(model: Model) -> None:
    heard: list[str] = []
    patcher = ModelPatcher(model)
    patcher.add_callback(MOMENT.ON_PRE_RUN, lambda told: heard.append(f"before {type(told).__name__}"))
    patcher.add_callback_with_key(MOMENT.ON_CLEANUP, "mine", lambda told: heard.append("after"))
    assert torch.equal(run(model_of(patcher)), run(model))
    assert heard == ["before ModelPatcher", "after"]

    def fails(executor: Any, *_: Any, **__: Any) -> Tensor:
        raise RuntimeError("a pack's own")

    patcher.add_wrapper_with_key(PLACE.DIFFUSION_MODEL, "fails", fails)
    with pytest.raises(RuntimeError, match="a pack's own"):
        run(model_of(patcher))
    assert heard[2:] == ["before ModelPatcher", "after"]


def test_places_and_moments_that_are_not_here_are_refused_by_name(model: Model) -> None:
    patcher = ModelPatcher(model)
    with pytest.raises(BadValue, match="add_wrapper: 'sampler_sample'"):
        patcher.add_wrapper_with_key(PLACE.SAMPLER_SAMPLE, "mine", through("", []))
    with pytest.raises(BadValue, match="add_callback: 'on_load'"):
        patcher.add_callback(MOMENT.ON_LOAD, lambda *_: None)
    patcher.add_wrapper_with_key(PLACE.OUTER_SAMPLE, "mine", lambda *_, **__: None)
    with pytest.raises(BadValue, match="outer_sample wrapper: 'NoneType'"):
        run(model_of(patcher))


def test_a_guider_in_a_packs_hands_is_surrounded_too(model: Model) -> None:
    seen: list[Any] = []
    patcher = ModelPatcher(model)
    patcher.add_wrapper_with_key(PLACE.OUTER_SAMPLE, "mine", through("outer_sample", seen))
    sampling = patching.names()["comfy.samplers"]
    entries = border().translations["CONDITIONING"].out

    class Own(sampling["CFGGuider"]):  # type: ignore[misc]  # a class by its name
        def predict_noise(self, *given: Any, **named: Any) -> Any:
            return super().predict_noise(*given, **named)

    for kind in (sampling["CFGGuider"], Own):
        guider = kind(patcher)
        guider.set_conds(entries(POSITIVE), entries(NEGATIVE))
        guider.set_cfg(4.0)
        sigmas = torch.tensor([1.0, 0.5, 0.0])
        made = guider.sample(X, X * 0, sampling["sampler_object"]("euler"), sigmas, seed=3)
        assert made.shape == X.shape
    assert len(seen) == 2


def test_a_killed_run_with_functions_of_packs_resumes_to_the_same_bits(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def surrounded_by(dies_at: int) -> Model:
        def wrapper(executor: Any, *given: Any, **named: Any) -> Tensor:
            calls.append(1)
            if len(calls) == dies_at:
                raise KeyboardInterrupt
            made: Tensor = executor(*given, **named)
            return made * 0.9

        patcher = ModelPatcher(model)
        patcher.add_wrapper_with_key(PLACE.DIFFUSION_MODEL, "mine", wrapper)
        patcher.add_wrapper_with_key(PLACE.OUTER_SAMPLE, "mine", through("", []))
        made: Model = model_of(patcher)
        return made

    monkeypatch.setattr(KeptPredictions, "__init__", partialmethod(KeptPredictions.__init__, budget=float("inf")))
    kept = Checkpoints(tmp_path)
    whole = run(surrounded_by(0))
    total = len(calls)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        run(surrounded_by(total), unfinished=kept.of("key"))
    calls.clear()
    assert torch.equal(run(surrounded_by(0), unfinished=kept.of("key")), whole)
    assert len(calls) < total
