"""Every rule of guidance with every other, in both orders, on a real small transformer: one law over all pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.graph.sweep import CACHES
from sigmagraph.engine.models import Model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.sampling import PhiloxNoise, Recording, Sampling
from sigmagraph.nodes import NODES
from tests.models.test_attention_changes import drawn, text, tiny_model

SCALE, SIGMA = 4.5, 0.7
POSITIVE, NEGATIVE, EMPTY = text(5, 1), text(4, 3), text(4, 7)
X = drawn(2, 16, 8, 10)
SHARPEN = NODES["LatentOperationSharpen"](sharpen_radius=1, sigma=1.0, alpha=0.5)
BOTH = {"start_percent": 0.0, "end_percent": 1.0}
MODEL = tiny_model(MMDiTShape(2, 64, 8, 16, 8, dual_attention_blocks=frozenset({0})))


@dataclass(frozen=True)
class Rule:
    """A node's inputs that act, and those that change nothing, where it has such."""

    acting: Mapping[str, Any]
    neutral: Mapping[str, Any] | None = None
    further: Mapping[str, Any] = field(default_factory=dict)
    is_formula: bool = False
    """Whether it replaces the formula, so that the last one of them counts."""
    sees_batch: bool = False
    """Whether its ComfyUI original takes a mean over the batch."""


RULES = {
    "RescaleCFG": Rule({"multiplier": 0.7}, {"multiplier": 0.0}, is_formula=True),
    "RenormCFG": Rule({"cfg_trunc": 100, "renorm_cfg": 0.5}, {"cfg_trunc": 100, "renorm_cfg": 0.0}, is_formula=True),
    "PerpNeg": Rule({"neg_scale": 1.0}, None, {"empty_conditioning": EMPTY}, is_formula=True),
    "CFGOverride": Rule({"cfg": 2.0} | BOTH, {"cfg": SCALE} | BOTH),
    "APG": Rule(
        {"eta": 0.3, "norm_threshold": 2.0, "momentum": 0.0}, {"eta": 1.0, "norm_threshold": 0.0, "momentum": 0.0}
    ),
    "CFGZeroStar": Rule({}),
    "CFGNorm": Rule({"strength": 0.9}),
    "TCFG": Rule({}),
    "Mahiro": Rule({}, sees_batch=True),
    "FreSca": Rule(
        {"scale_low": 0.8, "scale_high": 1.5, "freq_cutoff": 2}, {"scale_low": 1, "scale_high": 1, "freq_cutoff": 2}
    ),
    "FrequencyDecoupledGuidance": Rule(
        {"scale_low": 0.5, "scale_high": 1.3, "levels": 2}, {"scale_low": 1.0, "scale_high": 1.0, "levels": 2}
    ),
    "Epsilon Scaling": Rule({"scaling_factor": 1.1}, {"scaling_factor": 1.0}),
    "TemporalScoreRescaling": Rule({"tsr_k": 0.7, "tsr_sigma": 2.0}, {"tsr_k": 1.0, "tsr_sigma": 2.0}),
    "LatentApplyOperationCFG": Rule({}, None, {"operation": SHARPEN}),
    "SkipLayerGuidanceSD3": Rule({"layers": "0", "scale": 2.0} | BOTH, {"layers": "0", "scale": 0.0} | BOTH),
    "SkipLayerGuidanceDiT": Rule(
        {"double_layers": "0", "single_layers": "", "scale": 2.0} | BOTH,
        {"double_layers": "0", "single_layers": "", "scale": 0.0} | BOTH,
    ),
    "SkipLayerGuidanceDiTSimple": Rule(
        {"double_layers": "0", "single_layers": ""} | BOTH, {"double_layers": "", "single_layers": ""} | BOTH
    ),
    "PerturbedAttentionGuidance": Rule({"scale": 3.0, "layers": "0"}, {"scale": 3.0}),
    "SmoothedEnergyGuidance": Rule(
        {"layers": "0", "scale": 3.0, "blur_sigma": -1.0}, {"layers": "0", "scale": 0.0, "blur_sigma": -1.0}
    ),
    "NAGuidance": Rule(
        {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5}, {"nag_scale": 1.0, "nag_alpha": 0.5, "nag_tau": 1.5}
    ),
    "EasyCache": Rule({"reuse_threshold": 0.0, "verbose": False} | BOTH, {"reuse_threshold": 0.0} | BOTH),
    "ApplyFBCacheOnModel": Rule({"residual_diff_threshold": 1.0}, {"residual_diff_threshold": 0.0}),
    "ApplyTeaCache": Rule({"threshold": 3.0}, {"threshold": 0.0}),
    "ApplyMagCache": Rule({"threshold": 3.0, "magnitudes": "1 9 0 8"}, {"threshold": 0.0}),
    "ApplyTaylorSeer": Rule({"interval": 2, "warmup": 1}, {"interval": 1}),
}
CACHING = {class_type for class_type, _ in CACHES.values()}
ACTS = [name for name in RULES if name not in CACHING]  # what a cache leaves out needs a run
PAIRS = {name: [other for other in ACTS if other != name] for name in ACTS}


def patched(model: Model, name: str, inputs: Mapping[str, Any]) -> Model:
    result: Model = NODES[name](model=model, **RULES[name].further, **inputs)
    return result


def estimate(model: Model, x: Tensor = X, scale: float = SCALE) -> Tensor:
    with torch.inference_mode():
        return model.guided(POSITIVE, NEGATIVE, scale)(x, SIGMA).denoised


PLAIN = estimate(MODEL)
ALONE = {name: estimate(patched(MODEL, name, RULES[name].acting)) for name in ACTS}


def test_every_node_that_changes_guidance_is_among_these() -> None:
    changing = {
        name
        for name, one in NODES.items()
        if one.outputs
        and one.outputs[0].type == "MODEL"
        and one.function.__module__.endswith(("guidance", "guidance_rules", "attention_guidance", "step_caches"))
    }
    assert changing - {"DifferentialDiffusion", "LazyCache", "MeasureStepCacheDrift"} == set(RULES)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.neutral is not None])
def test_neutral_parameters_are_plain_guidance_bit_for_bit(name: str) -> None:
    neutral = RULES[name].neutral
    assert neutral is not None
    assert torch.equal(estimate(patched(MODEL, name, neutral)), PLAIN)


@pytest.mark.parametrize("name", ACTS)
def test_each_rule_acts(name: str) -> None:
    assert not torch.allclose(ALONE[name], PLAIN, atol=1e-4)


@pytest.mark.parametrize("name", ACTS)
def test_each_composes_with_each_in_both_orders(name: str) -> None:
    first = patched(MODEL, name, RULES[name].acting)
    for other in PAIRS[name]:
        both = estimate(patched(first, other, RULES[other].acting))
        assert torch.isfinite(both).all(), other
        if RULES[name].is_formula and RULES[other].is_formula:  # one formula: the last one
            assert torch.equal(both, ALONE[other]), other
        else:
            assert not torch.allclose(both, ALONE[other], atol=1e-5), f"{name} is lost before {other}"
            assert not torch.allclose(both, ALONE[name], atol=1e-5), f"{other} is lost after {name}"


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.neutral is not None])
def test_a_neutral_rule_beside_any_other_is_that_other_bit_for_bit(name: str) -> None:
    rule = RULES[name]
    assert rule.neutral is not None
    for other in ACTS:
        if other == name or (rule.is_formula and RULES[other].is_formula):
            continue
        before = patched(patched(MODEL, name, rule.neutral), other, RULES[other].acting)
        after = patched(patched(MODEL, other, RULES[other].acting), name, rule.neutral)
        if name != "CFGOverride":  # a scale for a part of the way counts for rules that know the scale
            assert torch.equal(estimate(before), ALONE[other]), other
        assert torch.equal(estimate(after), ALONE[other]), other


@pytest.mark.parametrize("name", ACTS)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    for other in [None, *PAIRS[name][::5]]:
        model = patched(MODEL, name, RULES[name].acting)
        model = model if other is None else patched(model, other, RULES[other].acting)
        if RULES[name].sees_batch or (other is not None and RULES[other].sees_batch):
            continue
        together = estimate(model)
        torch.testing.assert_close(together[1:], estimate(model, X[1:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_a_run_is_resumed_after_every_evaluation(name: str) -> None:
    model = patched(MODEL, name, RULES[name].acting)

    def run(recording: Recording) -> Tensor:
        denoiser = model.guided(POSITIVE, NEGATIVE, SCALE)
        levels, noise = [1.0, 0.8, 0.4, 0.0], PhiloxNoise(1)
        return Sampling(denoiser, torch.zeros(1, 16, 8, 10), levels, model.parameterisation, noise=noise).run(recording)

    whole = Recording()
    expected = run(whole)
    for count in range(3):
        assert torch.equal(run(Recording(whole.predictions[:count])), expected)
