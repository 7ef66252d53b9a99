"""Evaluations left out: the recorded decisions, and the laws that hold where ComfyUI's own runs are odd."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sigmagraph.engine.compose.run_workflow import run_workflow
from sigmagraph.engine.compose.workspace import open_workspace
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.lock import read_lock
from sigmagraph.engine.models import Model
from sigmagraph.engine.sampling.caches import TeaCache
from sigmagraph.engine.sampling.guidance import Cfg, Reuse, Space, network_space
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue
from tests.nodes.closed_form_model import closed_form_model, conditioning
from tests.nodes.golden_cases import content, family
from tests.nodes.test_whole_runs import off, sampled

CASES, TENSORS = family("guidance")
FLOWS = [
    key
    for key, case in CASES.items()
    if case["node"] == "EasyCache"
    and case["family"] == "flow"
    and case["cfg"] == 1.0
    and case["inputs"]["reuse_threshold"]
]
PLAIN = {"steps": 12, "cfg": 4.5, "scheduler": "simple", "denoise": 1.0, "seed": 3, "sampler": "euler"}
BLANK = {"samples": torch.zeros(2, 16, 6, 4)}


def flow() -> Model:
    return closed_form_model("flow", TENSORS)


def rows_asked(model: Model) -> list[int]:
    """The rows of every forward from now on."""
    asked: list[int] = []
    real = model.network.forward

    def forward(fed: Any, *rest: Any, **more: Any) -> Any:
        asked.append(len(fed))
        return real(fed, *rest, **more)

    network: Any = model.network
    network.forward = forward
    return asked


@pytest.mark.parametrize("key", FLOWS)
def test_with_its_input_changed_in_place_a_flow_run_is_the_recorded_one(key: str) -> None:
    """ComfyUI reads the foretold output against a state it has changed; read so, ours is bit for bit as careful."""
    case = CASES[key]
    inputs = content({"dict": case["inputs"]}, TENSORS)
    model = flow()

    def change(model: Model, guided: Cfg) -> Cfg:
        space, level = network_space(model.parameterisation), model.parameterisation.levels.percent_to_sigma

        def in_place(x: Any, sigma: float, output: Any) -> Any:
            return model.parameterisation.denoised(output, sigma, output)

        space = Space(space.fed, space.output, in_place)
        start, end = level(inputs["start_percent"]), level(inputs["end_percent"])
        return replace(guided, reuse=Reuse(inputs["reuse_threshold"], start, end, space))

    asked = rows_asked(model)
    found = sampled(model.with_guidance(change), case, conditioning("pos"), inputs["latent_image"])
    assert off(case, found, content(case["outputs"][0]["content"], TENSORS), key) is None
    assert asked == case["network_calls"]


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_a_threshold_of_nothing_changes_nothing_and_a_small_one_little(node: str) -> None:
    settings = {"start_percent": 0.1, "end_percent": 0.95, "verbose": False}
    plain = sampled(flow(), PLAIN, conditioning("pos"), BLANK)
    none = NODES[node](model=flow(), reuse_threshold=0.0, **settings)
    assert torch.equal(sampled(none, PLAIN, conditioning("pos"), BLANK), plain)
    model = flow()
    asked = rows_asked(model)
    found = sampled(NODES[node](model=model, reuse_threshold=0.1, **settings), PLAIN, conditioning("pos"), BLANK)
    assert sum(asked) < 4 * PLAIN["steps"]  # type: ignore[operator]
    assert float((found - plain).abs().mean()) < 0.2 * float(plain.abs().mean())


def test_each_side_is_foretold_as_if_it_were_alone() -> None:
    model = flow()
    sides = conditioning("pos"), conditioning("neg")

    def denoiser(positive: Any, scale: float) -> Cfg:
        rule = Reuse(0.6, 1.0, 0.0, network_space(model.parameterisation))
        return replace(Cfg(model.predict, positive, sides[1], scale), reuse=rule).begin()

    both, cond, uncond = denoiser(sides[0], 4.5), denoiser(sides[0], 1.0), denoiser(sides[1], 1.0)
    x = torch.randn(2, 16, 6, 4, generator=torch.Generator().manual_seed(0))
    for at in range(9):
        sigma = 0.95 - at * 0.1
        parts = [rule(x, sigma).denoised for rule in (both, cond, uncond)]
        torch.testing.assert_close(parts[0], parts[2] + (parts[1] - parts[2]) * 4.5)
        x = x * 0.97
    assert both.reuse is not None
    assert cond.reuse is not None
    assert uncond.reuse is not None
    assert both.reuse.skipped == cond.reuse.skipped + uncond.reuse.skipped > 0


def test_what_is_known_lives_in_one_run() -> None:
    model = NODES["LazyCache"](model=flow(), reuse_threshold=0.5, start_percent=0.0, end_percent=1.0, verbose=False)
    guided = model.guided(conditioning("pos"), conditioning("neg"), 4.5)
    first = sampled(model, PLAIN, conditioning("pos"), BLANK)
    assert torch.equal(sampled(model, PLAIN, conditioning("pos"), BLANK), first)
    assert guided.begin().reuse_whole is not guided.reuse_whole


def test_a_cache_that_looks_between_blocks_needs_blocks() -> None:
    model = NODES["ApplyTeaCache"](model=flow(), threshold=0.1)
    with pytest.raises(BadValue, match="MixtureNetwork.*EasyCache"):
        sampled(model, PLAIN, conditioning("pos"), BLANK)


def test_words_and_files_of_packs_are_refused_with_a_sentence() -> None:
    with pytest.raises(BadValue, match="diffusion_model"):
        NODES["ApplyFBCacheOnModel"](model=flow(), object_to_patch="vae")
    with pytest.raises(BadValue, match="a level and a length"):
        NODES["ApplyMagCache"](model=flow(), magnitudes="1.0 30, 0.9")
    with pytest.raises(BadValue, match="numbers"):
        NODES["ApplyTeaCache"](model=flow(), coefficients="one, two")
    patched = NODES["ApplyTeaCache"](model=flow(), coefficients="[4.9, 0.2, -1e-3]")
    assert patched.step_cache == TeaCache(0.2, (4.9, 0.2, -1e-3))


def test_the_measured_drift_is_the_distance_to_the_run_without_the_cache() -> None:
    plain = sampled(flow(), PLAIN, conditioning("pos"), BLANK)
    cached = NODES["EasyCache"](model=flow(), reuse_threshold=0.3, start_percent=0.0, end_percent=1.0, verbose=False)
    model = NODES["MeasureStepCacheDrift"](model=cached)
    asked = rows_asked(model)
    settings = {name: PLAIN[name] for name in ("steps", "cfg", "scheduler", "denoise", "seed")}
    sides = {"positive": conditioning("pos"), "negative": conditioning("neg"), "sampler_name": "euler"}
    done = NODES["KSampler"](**settings, **sides, model=model, latent_image=LatentValue(BLANK["samples"]))
    [told] = done.ui["step_cache"]
    expected = ((done.value.samples - plain).flatten(1).square().mean(1).sqrt() / plain.flatten(1).std(1)).mean()
    assert told["drift_measured"] == pytest.approx(float(expected), rel=2e-3)
    assert told["cache"] == "easycache:0.3"
    assert told["asked"] == 4 * PLAIN["steps"]  # type: ignore[operator]
    assert sum(asked) == 2 * told["asked"] - told["skipped"]


@pytest.mark.parametrize("measures", [False, True])
def test_report_lock_and_picture_say_what_was_left_out(home: Path, txt2img: Callable[..., Any], measures: bool) -> None:
    """Also where only the picture is written again, and its sampler is not needed."""
    graph = txt2img(model=["9", 0], steps=6)
    cache = {"model": ["1", 0], "interval": 2, "degree": 1, "warmup": 1, "start_percent": 0.0, "end_percent": 1.0}
    graph["8"] = {"class_type": "ApplyTaylorSeer", "inputs": cache}
    graph["9"] = {"class_type": "MeasureStepCacheDrift", "inputs": {"model": ["8", 0], "measure": measures}}
    space = open_workspace(home, home / "output")
    store = space.store(None)
    ran = [run_workflow(space, space.read(graph), store, lambda event: None) for _ in range(2)]
    [told] = ran[0].ui["5"]["step_cache"]
    assert (told["cache"], told["asked"], told["skipped"]) == ("taylorseer:2", 12, 6)
    assert told["drift_estimate"] > 0
    assert ("drift_measured" in told) == measures
    assert ran[0].lock.step_caches == {"5": [told]}
    for each in ran:
        written = Image.open(each.images[0]).text["lock"]  # type: ignore[attr-defined]
        assert json.loads(written)["step_caches"] == {"5": [told]}
        assert read_lock(written).step_caches == {"5": [told]}
