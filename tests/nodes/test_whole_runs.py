"""Whole runs of ComfyUI 0.3.64 on a model known in closed form, through the sampling nodes: regions, guidance."""

from typing import Any

import pytest
import torch

from sigmagraph.engine.graph.results import UiResult
from sigmagraph.engine.models import Conditioning, Model
from sigmagraph.nodes import NODES
from tests.nodes.closed_form_model import closed_form_model, conditioning
from tests.nodes.deviations import RESULTS
from tests.nodes.golden_cases import content, difference, family, ours


def sampled(model: Model, case: dict[str, Any], positive: Conditioning, latent: Any) -> torch.Tensor:
    settings = {name: case[name] for name in ("steps", "cfg", "scheduler", "denoise", "seed")}
    sides = {"positive": positive, "negative": conditioning("neg")}
    sampler = {"model": model, "sampler_name": case["sampler"], "latent_image": ours(latent, "LATENT")}
    done = NODES["KSampler"](**settings, **sides, **sampler)
    result: torch.Tensor = (done.value if isinstance(done, UiResult) else done).samples
    return result


def off(case: dict[str, Any], found: torch.Tensor, expected: Any, key: str) -> str | None:
    # ComfyUI's own rounding, and that of its noise levels: those are float32, ours float64
    limit = max(2e-5, 4.5 * (case.get("f32_error") or 0.0))
    if case["node"] == "LazyCache" and case["family"] == "eps":  # not measured; states of up to 60: 1e-6 of that
        limit = 6e-5
    return difference(found, expected["samples"], limit, key)


def region_of(case: dict[str, Any], inputs: dict[str, Any]) -> Conditioning:
    """The positive side as the case's note says."""
    first, second = conditioning("pos"), conditioning("pos2")
    if case["node"] == "ConditioningSetDefaultCombine":
        placed = NODES["ConditioningSetMask"](conditioning=second, strength=1.0, **inputs)
        return NODES[case["node"]](cond=placed, cond_DEFAULT=first)  # type: ignore[no-any-return]
    placed = NODES[case["node"]](conditioning=second, **inputs)
    if case["note"].startswith("positive = pos combined"):
        return NODES["ConditioningCombine"](conditioning_1=first, conditioning_2=placed)  # type: ignore[no-any-return]
    return placed  # type: ignore[no-any-return]


@pytest.mark.parametrize("key", sorted(family("areas")[0]))
def test_regions_of_a_conditioning_give_the_recorded_picture(key: str) -> None:
    cases, tensors = family("areas")
    case = cases[key]
    inputs = content({"dict": case["inputs"]}, tensors)
    latent = inputs.pop("latent_image")
    model = closed_form_model(case["family"], tensors)
    found = sampled(model, case, region_of(case, inputs), latent)
    assert off(case, found, content(case["outputs"][0]["content"], tensors), key) is None


PATCHES = sorted({case["node"] for case in family("guidance")[0].values()})


def patched(model: Model, node: str, inputs: dict[str, Any]) -> Model:
    given = {name: value for name, value in inputs.items() if name != "latent_image"}
    if "operation" in given:
        made = given["operation"]
        given["operation"] = NODES[made["operation"]](**made["inputs"])
    return model if node == "none" else NODES[node](model=model, **given)  # type: ignore[no-any-return]


@pytest.mark.parametrize("node", PATCHES)
def test_guidance_gives_the_recorded_pictures(node: str) -> None:
    cases, tensors = family("guidance")
    said = []
    for key, case in cases.items():
        if case["node"] != node:
            continue
        inputs = content({"dict": case["inputs"]}, tensors)
        model = patched(closed_form_model(case["family"], tensors), node, inputs)
        for further in case.get("then", ()):
            model = patched(model, further["node"], content({"dict": further["inputs"]}, tensors))
        found = sampled(model, case, conditioning("pos"), inputs["latent_image"])
        if "error" not in case and (node != "EasyCache" or key not in RESULTS[node][0]):
            said.append(off(case, found, content(case["outputs"][0]["content"], tensors), key))
        elif key not in RESULTS[node][0]:
            said.append(f"{key}: a result where {case['error']['message']!r} was recorded")
    assert [message for message in said if message is not None] == []


PLAIN = {"steps": 6, "cfg": 4.5, "scheduler": "simple", "denoise": 1.0, "seed": 3, "sampler": "euler"}
BLANK = {"samples": torch.zeros(1, 16, 6, 4)}


def flow_run(model: Model, **changes: Any) -> torch.Tensor:
    return sampled(model, PLAIN | changes, conditioning("pos"), BLANK)


def test_an_overridden_scale_counts_for_its_part_and_the_last_one_wins() -> None:
    model = closed_form_model("flow", family("guidance")[1])

    def override(base: Model, cfg: float, start: float = 0.0, end: float = 1.0) -> Model:
        return NODES["CFGOverride"](model=base, cfg=cfg, start_percent=start, end_percent=end)  # type: ignore[no-any-return]

    torch.testing.assert_close(flow_run(override(model, 1.5)), flow_run(model, cfg=1.5))
    torch.testing.assert_close(flow_run(override(model, 1.0)), flow_run(model, cfg=1.0))
    both = override(override(model, 9.0), 2.0)
    torch.testing.assert_close(flow_run(both), flow_run(model, cfg=2.0))
    part = flow_run(override(model, 1.0, 0.5, 1.0))
    assert not torch.allclose(part, flow_run(model), atol=1e-3)
    assert not torch.allclose(part, flow_run(model, cfg=1.0), atol=1e-3)
    ruled = NODES["APG"](model=model, eta=1.0, norm_threshold=0.0, momentum=0.0)
    torch.testing.assert_close(flow_run(override(ruled, 2.0)), flow_run(model, cfg=2.0))


def test_two_models_predict_a_side_each() -> None:
    tensors = family("guidance")[1]
    model, weaker = closed_form_model("flow", tensors), closed_form_model("flow", tensors).with_skipped_layers([3])
    sides = {"positive": conditioning("pos"), "negative": conditioning("neg")}
    same = NODES["DualModelGuider"](model=model, **sides, cfg=4.5, model_negative=model)
    plain, dual = (
        guider.denoiser(torch.ones(1, 16, 6, 4), 0.7).denoised
        for guider in (same, NODES["DualModelGuider"](model=model, **sides, cfg=4.5, model_negative=weaker))
    )
    (cond,) = model.predict(torch.ones(1, 16, 6, 4), 0.7, [sides["positive"]])
    (uncond,) = weaker.predict(torch.ones(1, 16, 6, 4), 0.7, [sides["negative"]])
    torch.testing.assert_close(dual, uncond + (cond - uncond) * 4.5)
    torch.testing.assert_close(
        plain, model.guided(sides["positive"], sides["negative"], 4.5)(torch.ones(1, 16, 6, 4), 0.7).denoised
    )


def test_the_bound_of_a_norm_is_each_images_own() -> None:
    tensors = family("guidance")[1]
    model = NODES["RenormCFG"](model=closed_form_model("flow", tensors), cfg_trunc=100.0, renorm_cfg=1.0)
    case = {"steps": 4, "cfg": 4.5, "scheduler": "simple", "denoise": 1.0, "seed": 3, "sampler": "euler"}
    both = {"samples": torch.zeros(2, 16, 6, 4), "batch_index": [0, 1]}
    found = sampled(model, case, conditioning("pos"), both)
    for place in range(2):
        alone = sampled(model, case, conditioning("pos"), {"samples": torch.zeros(1, 16, 6, 4), "batch_index": [place]})
        torch.testing.assert_close(found[place], alone[0])


def constant_model() -> tuple[Model, dict[str, torch.Tensor]]:
    """A model whose estimate is one fixed picture a side, whatever the state: guided runs end at what guidance says."""
    pictures = {
        side: torch.randn(1, 16, 6, 4, generator=torch.Generator().manual_seed(at))
        for at, side in enumerate(("pos", "neg"))
    }
    mixtures: dict[str, torch.Tensor] = {}
    for side, picture in pictures.items():
        mixtures |= {f"mixture/flow/{side}/means": picture, f"mixture/flow/{side}/stds": torch.zeros(1)}
        mixtures[f"mixture/flow/{side}/weights"] = torch.ones(1)
    return closed_form_model("flow", mixtures), pictures


@pytest.mark.parametrize(("momentum", "steps"), [(0.0, 3), (-0.5, 1), (-0.5, 4), (0.7, 3)])
def test_apg_over_a_whole_run_ends_at_its_geometric_series(momentum: float, steps: int) -> None:
    model, pictures = constant_model()
    cond, uncond = pictures["pos"].double(), pictures["neg"].double()
    gathered = (cond - uncond) * sum(momentum**power for power in range(steps))
    gathered = gathered * min(1.0, 5.0 / float(gathered.norm()))
    along = cond * ((gathered * cond).sum() / (cond * cond).sum())
    expected = uncond + 4.5 * (gathered - along + 0.3 * along)
    ruled = NODES["APG"](model=model, eta=0.3, norm_threshold=5.0, momentum=momentum)
    torch.testing.assert_close(flow_run(ruled, steps=steps).double(), expected, rtol=0, atol=1e-4)


def test_cfg_zero_star_over_a_whole_run_ends_at_the_fitted_guidance() -> None:
    model, pictures = constant_model()
    cond, uncond = pictures["pos"].double(), pictures["neg"].double()
    fitted = uncond * ((cond * uncond).sum() / (uncond * uncond).sum())
    found = flow_run(NODES["CFGZeroStar"](model=model)).double()
    torch.testing.assert_close(found, fitted + 4.5 * (cond - fitted), rtol=0, atol=1e-4)
