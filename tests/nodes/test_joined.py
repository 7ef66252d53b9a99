"""Samplers of several jobs whose predictions are made in one forward: the same latents, up to the last bits."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.graph.node import Node, UiResult, node
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.models import Checkpoint, Conditioning, load_checkpoint
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.models.value import predict_together
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support import types
from sigmagraph.nodes.support.types import LatentValue


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def forwards(tiny: Checkpoint) -> Iterator[list[int]]:
    """The number of rows of each forward."""
    rows: list[int] = []
    hook = tiny.model.network.register_forward_hook(lambda module, given, result: rows.append(len(result)))
    yield rows
    hook.remove()


def conditioning(seed: int, length: int = 6) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, length, 128, generator=generator), torch.randn(1, 128, generator=generator))


def library(tiny: Checkpoint) -> dict[str, Node]:
    """The nodes, with a source of everything a sampler takes and an end that shows the latent itself."""

    @node("Parts", category="test")
    def parts(
        *, text: int = 0, tokens: int = 6, masked: bool = False
    ) -> tuple[types.Model, types.Conditioning, types.Conditioning, types.Latent]:
        """A model, two prompts and a latent, half of it masked if asked for."""
        mask = torch.zeros(1, 48, 64)
        mask[..., 32:] = 1
        drawn = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(text))
        latent = LatentValue(drawn, mask) if masked else LatentValue(torch.zeros(1, 16, 6, 8))
        return tiny.model, conditioning(text + 1, tokens), conditioning(0, tokens), latent

    @node("Keep", category="test", output_node=True)
    def keep(*, latent: types.Latent) -> UiResult:
        """Shows the latent."""
        return UiResult(ui={"latents": [latent.samples]})

    return {**NODES, "Parts": parts, "Keep": keep}


def job(tiny: Checkpoint, parts: dict[str, Any] | None = None, **sampler: Any) -> Plan:
    links = {name: ["p", at] for at, name in enumerate(("model", "positive", "negative", "latent_image"))}
    inputs = {"seed": 7, "steps": 6, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    document = {
        "p": {"class_type": "Parts", "inputs": {"text": 0, "tokens": 6, "masked": False} | (parts or {})},
        "k": {"class_type": "KSampler", "inputs": {**links, **inputs, **sampler}},
        "o": {"class_type": "Keep", "inputs": {"latent": ["k", 0]}},
    }
    return plan(validate(parse_workflow(document), library(tiny)))


def latent_of(ui: Any) -> Tensor:
    latent: Tensor = ui["o"]["latents"][0]
    return latent


def test_jobs_with_other_prompts_samplers_guidance_and_masks_share_forwards(
    tiny: Checkpoint, forwards: list[int]
) -> None:
    plans = [
        job(tiny),
        job(tiny, {"text": 5}, sampler_name="euler_ancestral", seed=2),
        job(tiny, {"text": 6}, sampler_name="dpmpp_2m_sde", seed=3, cfg=7.0),
        job(tiny, {"text": 7, "masked": True}, sampler_name="dpmpp_2m", seed=4, cfg=1.0),
    ]
    alone = [latent_of(execute(planned, None, MemoryCache(0), around=torch.inference_mode).ui) for planned in plans]
    evaluations = len(forwards)
    forwards.clear()
    scheduler = Scheduler(cache=MemoryCache(0), batch_evaluations=4, around=torch.inference_mode)
    tickets = [scheduler.submit(planned) for planned in plans]
    joined = [latent_of(ticket.wait(60).or_raise().ui) for ticket in tickets]
    scheduler.close()
    assert evaluations == 24
    assert sum(forwards) == 42  # three guided jobs ask for two rows at a time, the unguided one for one
    assert len(forwards) < 18
    for ours, theirs in zip(joined, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_without_the_option_every_job_is_predicted_alone_bit_for_bit(tiny: Checkpoint, forwards: list[int]) -> None:
    plans = [job(tiny, {"text": at}, seed=at) for at in range(3)]
    alone = [latent_of(execute(planned, None, MemoryCache(0), around=torch.inference_mode).ui) for planned in plans]
    forwards.clear()
    scheduler = Scheduler(cache=MemoryCache(0), around=torch.inference_mode)
    tickets = [scheduler.submit(planned) for planned in plans]
    assert all(
        torch.equal(latent_of(ticket.wait(60).or_raise().ui), latent)
        for ticket, latent in zip(tickets, alone, strict=True)
    )
    scheduler.close()
    assert forwards == [2] * 18


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_together_are_those_made_alone(tiny_checkpoint: Path, dtype: torch.dtype) -> None:
    """States of other batches, levels and lengths of prompts; in double precision to the last bits of single."""
    loaded = load_checkpoint(tiny_checkpoint).model
    model = replace(loaded, recipe=ready(copy.deepcopy(loaded.network).to(dtype), loaded.placement))
    generator = torch.Generator().manual_seed(1)
    questions = []
    for batch, sigma, lengths in ((1, 0.9, (6, 6)), (2, 0.4, (6,)), (1, 0.1, (6, 9))):
        x = torch.randn(batch, 16, 6, 8, generator=generator)
        prompts = [conditioning(at, length) for at, length in enumerate(lengths)]
        if dtype is torch.float64:
            x = x.double()
            prompts = [Conditioning(one.context.double(), one.pooled.double()) for one in prompts]
        questions.append((model, x, sigma, prompts))
    together = predict_together(questions)
    for (_, x, sigma, prompts), answers in zip(questions, together, strict=True):
        for ours, theirs in zip(answers, model.predict(x, sigma, prompts), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


def test_models_that_differ_in_what_runs_are_not_joined(tiny: Checkpoint) -> None:
    model, x = tiny.model, torch.zeros(1, 16, 6, 8)
    assert model.joins(x) == model.joins(x.repeat(3, 1, 1, 1))
    assert model.joins(x) == model.with_parameterisation(model.parameterisation).joins(x)
    assert model.joins(x) != model.with_skipped_layers([0]).joins(x)
    assert model.joins(x) != model.joins(torch.zeros(1, 16, 8, 8))
