"""Samplers and schedules that a pack adds to ComfyUI's lists: choices of our nodes, which run them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sigmagraph.engine.compose.packs import load_custom_nodes
from sigmagraph.engine.compose.shims import added
from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.jobs.workers.declare import declarations, declared
from sigmagraph.engine.models import Conditioning, Model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.graph_names import content
from sigmagraph.nodes.support.types import LatentValue
from tests.models.test_attention_changes import tiny_model

ADDS = """
import importlib
import torch
import comfy.samplers
from comfy.samplers import KSampler, SCHEDULER_HANDLERS, SCHEDULER_NAMES, SchedulerHandler, k_diffusion_sampling


def sample_mine(model, x, sigmas, extra_args=None, callback=None, disable=None, share=1.0, table=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        d = k_diffusion_sampling.to_d(x, sigmas[i], denoised)
        x = x + share * d * (sigmas[i + 1] - sigmas[i])
    return x


def unusual(model, x, sigmas, step_length, extra_args=None, callback=None, disable=None):
    return x


def halves(model_sampling, steps):
    return torch.linspace(float(model_sampling.sigma_max), 0, steps + 1)


for name, function in {"mine": sample_mine, "odd@2": unusual, "euler": unusual, "nowhere": None}.items():
    if name not in KSampler.SAMPLERS:
        KSampler.SAMPLERS.insert(KSampler.SAMPLERS.index("uni_pc_bh2") + 1, name)
        if function is not None:
            setattr(k_diffusion_sampling, "sample_" + name, function)
importlib.reload(k_diffusion_sampling)
if "halves" not in SCHEDULER_HANDLERS:
    SCHEDULER_HANDLERS["halves"] = SchedulerHandler(handler=halves, use_ms=True)
    SCHEDULER_NAMES.append("halves")


class Settled:
    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "go"
    CATEGORY = "mine"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": (KSampler.SAMPLERS,), "share": ("FLOAT", {"default": 1.0})}}

    def go(self, name, share):
        return (comfy.samplers.ksampler(name, {"share": share, "table": {}} if name == "mine" else {}),)


NODE_CLASS_MAPPINGS = {"Settled": Settled}
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/adds.py").write_text(ADDS, encoding="utf-8")
    heard: list[Pack] = []
    folders = Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    yield load_custom_nodes([tmp_path / "packs"], folders, heard.append)
    added.forget_added()
    assert [pack.problems for pack in heard] == [()]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(MMDiTShape(2, 64, 8, 16, 8))


def sampled(nodes: Any, model: Model, sampler: str, scheduler: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    side = Conditioning(
        torch.randn(1, 6, model.spec.shape.context_width, generator=generator),
        torch.randn(1, model.spec.shape.pooled_width, generator=generator),
    )
    about = {"seed": 3, "steps": 4, "cfg": 1.0, "sampler_name": sampler, "scheduler": scheduler, "denoise": 1.0}
    latent = LatentValue(torch.zeros(1, 16, 4, 4))
    found: torch.Tensor = finished(
        nodes["KSampler"](model=model, positive=side, negative=side, latent_image=latent, **about)
    ).samples
    return found


def finished(made: Any) -> Any:
    """The value of a node that may report on its way."""
    if not hasattr(made, "send"):
        return made
    while True:
        try:
            next(made)
        except StopIteration as end:
            return end.value


def test_our_sampling_nodes_offer_and_run_them_with_the_numbers_of_an_equal_one_of_ours(
    nodes: Any, model: Model
) -> None:
    front = declared(declarations([nodes["KSampler"]], None))  # what a front hears of them
    for known in (nodes["KSampler"], front["KSampler"]):
        offered = known.object_info()["input"]["required"]
        assert {"mine", "euler"} <= set(offered["sampler_name"][0])
        assert not {"odd@2", "nowhere"} & set(offered["sampler_name"][0])
        assert "halves" in offered["scheduler"][0]
    for scheduler in ("simple", "halves"):
        found = sampled(nodes, model, "mine", scheduler)
        torch.testing.assert_close(found, sampled(nodes, model, "euler", scheduler), atol=1e-5, rtol=1e-5)
    assert SCHEDULES["halves"](model.parameterisation.levels, 4) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_what_a_pack_sets_reaches_its_function_and_its_file_is_in_the_keys(nodes: Any, model: Model) -> None:
    settled = nodes["Settled"]
    half, whole = (settled.reads(settled(name="mine", share=share)).values[0] for share in (0.5, 1.0))
    levels, side = (
        (1.0, 0.5, 0.0),
        Conditioning(torch.ones(1, 6, model.spec.shape.context_width), torch.ones(1, model.spec.shape.pooled_width)),
    )
    made = [
        finished(
            NODES["SamplerCustomAdvanced"](
                noise=NODES["RandomNoise"](noise_seed=1),
                guider=NODES["BasicGuider"](model=model, conditioning=side),
                sampler=sampler,
                sigmas=levels,
                latent_image=LatentValue(torch.zeros(1, 16, 4, 4)),
            )
        )[0].samples
        for sampler in (half, whole, NODES["KSamplerSelect"](sampler_name="euler"))
    ]
    assert not torch.allclose(made[0], made[1])
    torch.testing.assert_close(made[1], made[2], atol=1e-5, rtol=1e-5)
    assert content("sampler", "mine") != content("sampler", "euler")
    assert content("schedule", "halves")


def test_another_load_forgets_them_and_a_graph_then_hears_of_the_unknown_name(nodes: Any, model: Model) -> None:
    assert "mine" in SOLVERS
    added.forget_added()
    assert "mine" not in SOLVERS
    assert "halves" not in SCHEDULES
    document = {
        "1": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "mine"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(InvalidWorkflow, match="mine"):
        validate(parse_workflow(document), NODES)
