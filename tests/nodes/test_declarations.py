import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.nodes import NODES
from tests.nodes.deviations import DECLARATIONS, MISSING, NEWER, page

ROOT = Path(__file__).parents[2]
COMFYUI = json.loads(gzip.decompress((ROOT / "tests/data/nodes/comfyui_declarations.json.gz").read_bytes()))
SHARED = sorted(set(NODES) & set(COMFYUI))
SAMPLER_LISTS = ("sampler_name", "scheduler")


def without_words(spec: list[Any]) -> list[Any]:
    """Type and options in one form: no tooltip, no default of a combo (the editor takes the first)."""
    kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
    options.pop("tooltip", None)
    if kind == "COMBO":
        kind = options.pop("options", [])
        options.pop("multiselect", None)
    if isinstance(kind, list):
        options.pop("default", None)
    return [kind, options]


# of ComfyUI 0.3.64: the custom-sampling family, and what a sampling graph around it uses
FAMILY = """
KSampler KSamplerAdvanced SamplerCustom SamplerCustomAdvanced KSamplerSelect SamplerEulerAncestral
SamplerEulerAncestralCFGPP SamplerLMS SamplerDPMPP_3M_SDE SamplerDPMPP_2M_SDE SamplerDPMPP_SDE
SamplerDPMPP_2S_Ancestral SamplerDPMAdaptative SamplerER_SDE SamplerSASolver SamplerLCMUpscale SamplerEulerCFGpp
BasicScheduler KarrasScheduler ExponentialScheduler PolyexponentialScheduler LaplaceScheduler VPScheduler
BetaSamplingScheduler SDTurboScheduler AlignYourStepsScheduler GITSScheduler OptimalStepsScheduler LTXVScheduler
SplitSigmas SplitSigmasDenoise FlipSigmas SetFirstSigma ExtendIntermediateSigmas SamplingPercentToSigma ManualSigmas
RandomNoise DisableNoise AddNoise BasicGuider CFGGuider DualCFGGuider PerpNegGuider PerpNeg ModelSamplingSD3
ModelSamplingAuraFlow ModelSamplingFlux ModelSamplingDiscrete ModelSamplingContinuousEDM ModelSamplingContinuousV
RescaleCFG SkipLayerGuidanceSD3 APG CFGZeroStar ConditioningCombine ConditioningConcat ConditioningAverage
ConditioningZeroOut ConditioningSetTimestepRange EmptyLatentImage EmptySD3LatentImage SetLatentNoiseMask
VAEEncodeForInpaint LatentUpscale LatentUpscaleBy LatentFromBatch RepeatLatentBatch RebatchLatents LatentComposite
LatentCompositeMasked LatentRotate LatentFlip LatentCrop LatentAdd LatentSubtract LatentMultiply LatentInterpolate
LatentBatch LatentBatchSeedBehavior LatentBlend
"""


def test_the_whole_custom_sampling_family_is_there() -> None:
    assert [name for name in FAMILY.split() if name not in NODES] == []


@pytest.mark.parametrize("name", SHARED)
def test_inputs_have_comfyuis_names_and_order_within_each_group(name: str) -> None:
    ours = NODES[name].object_info()["input"]
    known = {
        group: [
            declared
            for declared in inputs
            if (name, declared) not in DECLARATIONS or declared in COMFYUI[name]["input"].get(group, {})
        ]
        for group, inputs in ours.items()
    }
    assert {group: inputs for group, inputs in known.items() if inputs or group in COMFYUI[name]["input"]} == {
        group: list(inputs) for group, inputs in COMFYUI[name]["input"].items()
    }


@pytest.mark.parametrize("name", SHARED)
def test_inputs_have_comfyuis_types_defaults_and_ranges(name: str) -> None:
    ours = NODES[name].object_info()["input"]
    for group in ("required", "optional"):
        for input_name, spec in COMFYUI[name]["input"].get(group, {}).items():
            if (name, input_name) not in DECLARATIONS and input_name not in SAMPLER_LISTS:
                assert without_words(ours[group][input_name]) == without_words(spec), input_name


@pytest.mark.parametrize("name", SHARED)
def test_outputs_category_and_title_are_comfyuis(name: str) -> None:
    ours, theirs = NODES[name].object_info(), COMFYUI[name]
    for flag in ("deprecated", "experimental"):
        assert ours.get(flag, False) == theirs.get(flag, False) or (name, flag) in DECLARATIONS
    for fact in ("output", "output_name", "output_is_list", "category", "output_node"):
        assert ours[fact] == theirs[fact], fact
    assert ours["display_name"] == (theirs["display_name"] or name)


def test_every_difference_that_is_listed_is_one_and_stands_in_the_docs() -> None:
    for name, part in DECLARATIONS:
        ours, theirs = NODES[name].object_info(), COMFYUI[name]
        if part in NODES[name].declared:
            group = NODES[name].declared[part].group
            spec = theirs["input"].get(group, {}).get(part)
            assert spec is None or without_words(ours["input"][group][part]) != without_words(spec)
        else:
            assert ours.get(part, False) != theirs.get(part, False)
    assert (ROOT / "docs/comfyui.md").read_text("utf-8") == page(), "python -m tests.nodes.deviations > docs/comfyui.md"


def test_every_node_is_held_to_a_declaration_or_named_as_newer_or_ours() -> None:
    ours = {"SaveImageWebsocket", "ControlNetConvention", "FrequencyDecoupledGuidance", "SmoothedEnergyGuidance"}
    ours |= {"ApplyFBCacheOnModel", "ApplyTeaCache", "ApplyMagCache", "ApplyTaylorSeer", "MeasureStepCacheDrift"}
    ours |= {name for name in NODES if name.startswith("Sampler") and name not in COMFYUI}
    of_packs = {name for name in NODES if "GGUF" in name}  # held to theirs in test_gguf_loaders.py
    unknown = set(NODES) - set(COMFYUI) - set(NEWER) - ours - of_packs
    assert unknown - {name for name in unknown if NODES[name].category.startswith("sampling")} == set()
    assert not set(NEWER) & set(COMFYUI)
    assert not set(MISSING) & set(NODES)


@pytest.mark.parametrize("name", sorted(NODES))
def test_every_node_says_what_it_does(name: str) -> None:
    description = NODES[name].description
    assert description.splitlines()[0].endswith((".", ":"))
