"""Nodes of ControlNets: whole graphs beside other jobs, what packs do with a ControlNet, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.compose.shims import shim_names
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.graph.node import Node, UiResult, node
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.models import Checkpoint, Conditioning, Control, ControlNet, load_checkpoint
from sigmagraph.nodes import NODES
from sigmagraph.nodes.sampling.step_caches import written_cache
from sigmagraph.nodes.support import types
from sigmagraph.nodes.support.borders import TRANSLATIONS, border
from sigmagraph.nodes.support.packs.controls import PackControlNet
from tests.tiny import write_controlnet

HINT = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def folders(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    home = tmp_path_factory.mktemp("controlnets")
    shape = tiny.model.spec.shape
    write_controlnet(home / "models/controlnet/canny.safetensors", shape, kind=1)
    write_controlnet(home / "models/controlnet/joint.safetensors", shape)
    for part in ("input", "output", "temp"):
        (home / part).mkdir()
    return Folders(home / "models", home / "input", home / "output", home / "temp")


@pytest.fixture(scope="module")
def net(folders: Folders) -> ControlNet:
    loaded: ControlNet = NODES["ControlNetLoader"](control_net_name="joint.safetensors", services=folders)
    return loaded


def text(tiny: Checkpoint, seed: int) -> Conditioning:
    generator, shape = torch.Generator().manual_seed(seed), tiny.model.spec.shape
    context = torch.randn(1, 6, shape.context_width, generator=generator)
    return Conditioning(context, torch.randn(1, shape.pooled_width, generator=generator))


def library(tiny: Checkpoint) -> dict[str, Node]:
    @node("Parts", category="test")
    def parts(
        *, prompt: int = 0
    ) -> tuple[types.Model, types.Vae, types.Conditioning, types.Conditioning, types.Image, types.Latent]:
        """A model, an autoencoder, two prompts, a hint and a blank latent."""
        assert tiny.vae is not None
        blank = types.LatentValue(torch.zeros(1, 16, 6, 8))
        return tiny.model, tiny.vae, text(tiny, prompt + 1), text(tiny, 0), HINT, blank

    @node("Keep", category="test", output_node=True)
    def keep(*, latent: types.Latent) -> UiResult:
        """Shows the latent."""
        return UiResult(ui={"latents": [latent.samples]})

    return {**NODES, "Parts": parts, "Keep": keep}


def job(
    tiny: Checkpoint, folders: Folders, name: str, prompt: int = 0, cache: str | None = None, **sampler: Any
) -> Plan:
    applied = {"positive": ["p", 2], "negative": ["p", 3], "control_net": ["n", 0], "image": ["p", 4], "vae": ["p", 1]}
    inputs = {"seed": 7, "steps": 5, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    document = {
        "p": {"class_type": "Parts", "inputs": {"prompt": prompt}},
        "n": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": name}},
        "a": {
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {**applied, "strength": 0.8, "start_percent": 0.0, "end_percent": 0.7},
        },
        "k": {
            "class_type": "KSampler",
            "inputs": {
                **({"model": ["p", 0], "positive": ["a", 0], "negative": ["a", 1], "latent_image": ["p", 5]} | inputs),
                **sampler,
            },
        },
        "o": {"class_type": "Keep", "inputs": {"latent": ["k", 0]}},
    }
    if cache is not None:
        class_type, settings = written_cache(cache)
        document["c"] = {"class_type": class_type, "inputs": {**settings, "model": ["p", 0]}}
        document["k"]["inputs"]["model"] = ["c", 0]
    return plan(validate(parse_workflow(document), library(tiny), folders), folders)


def latent_of(ui: Any) -> Tensor:
    latent: Tensor = ui["o"]["latents"][0]
    return latent


@pytest.mark.parametrize("together", [1, 4])
def test_jobs_that_take_turns_give_the_latents_of_jobs_alone(tiny: Checkpoint, folders: Folders, together: int) -> None:
    """To the bit where they take turns, nearly so where their forwards are joined."""
    plans = [
        job(tiny, folders, "joint.safetensors"),
        job(tiny, folders, "joint.safetensors", 1, sampler_name="dpmpp_2m", seed=2),
        job(tiny, folders, "canny.safetensors", 2, sampler_name="euler_ancestral", cfg=1.0),
    ]
    alone = [
        latent_of(execute(one, folders, MemoryCache(0), around=torch.inference_mode).or_raise().ui) for one in plans
    ]
    assert float((alone[0] - alone[1]).abs().max()) > 1e-2
    scheduler = Scheduler(
        cache=MemoryCache(0), services=folders, batch_evaluations=together, around=torch.inference_mode
    )
    tickets = [scheduler.submit(one) for one in plans]
    beside = [latent_of(ticket.wait(60).or_raise().ui) for ticket in tickets]
    scheduler.close()
    for ours, theirs in zip(beside, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if together == 1 else 1e-4)


@pytest.mark.parametrize("name", ["joint.safetensors", "canny.safetensors"])
@pytest.mark.parametrize("cache", ["first_block:{}", "teacache:{}", "magcache:{}"])
def test_a_step_cache_goes_with_a_controlnet(tiny: Checkpoint, folders: Folders, name: str, cache: str) -> None:
    """To the bit at threshold 0. The net acts for a part of the way: where it ends, all residuals are computed anew."""

    def run(written: str | None) -> Any:
        planned = job(tiny, folders, name, cache=written, steps=8)
        return execute(planned, folders, MemoryCache(0), around=torch.inference_mode).or_raise().ui

    plain, neutral, cached = run(None), run(cache.format(0)), run(cache.format(1))
    assert torch.equal(latent_of(neutral), latent_of(plain))
    [told] = cached["k"]["step_cache"]
    assert 0 < told["skipped"] <= told["asked"] - 4  # both sides at the first level, and where the net has ended
    assert float((latent_of(cached) - latent_of(plain)).norm()) < float(latent_of(plain).norm())


def test_both_sides_of_an_application_share_one_control(tiny: Checkpoint, net: ControlNet) -> None:
    first, second = text(tiny, 1).beside(text(tiny, 2)), text(tiny, 3)
    given = {"control_net": net, "image": HINT, "vae": tiny.vae, "strength": 0.5}
    positive, negative = NODES["ControlNetApplyAdvanced"](positive=first, negative=second, **given)
    assert {one.controls for one in (*positive.entries, *negative.entries)} == {negative.controls}
    assert len(negative.controls) == 1


def test_a_net_of_this_family_without_an_autoencoder_is_refused_where_it_is_applied(
    tiny: Checkpoint, net: ControlNet
) -> None:
    with pytest.raises(
        BadValue, match="vae: None is not allowed; expected an autoencoder: this ControlNet takes latents"
    ):
        NODES["ControlNetApply"](conditioning=text(tiny, 1), control_net=net, image=HINT)


def test_a_text_for_controlnets_alone_changes_what_they_read(tiny: Checkpoint, net: ControlNet) -> None:
    acting = Control(net, HINT, tiny.vae)
    entry, x = text(tiny, 1).with_control(acting), torch.randn(1, 16, 6, 8)
    other = entry.with_extra(cross_attn_controlnet=text(tiny, 2).context, pooled_output_controlnet=text(tiny, 2).pooled)
    same = entry.with_extra(cross_attn_controlnet=entry.context, pooled_output_controlnet=entry.pooled)
    found = [tiny.model.predict(x, 0.5, [one])[0] for one in (entry, other, same)]
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


# -- packs ------------------------------------------------------------------------------------------------------------

CONDITIONING, NET = TRANSLATIONS["CONDITIONING"], TRANSLATIONS["CONTROL_NET"]


def test_a_pack_applies_a_controlnet_as_packs_do(tiny: Checkpoint, net: ControlNet) -> None:
    """A copy with a hint, the one that was there behind it, the same object on both sides."""
    before = Control(net, HINT, tiny.vae, strength=0.3)
    sides = [CONDITIONING.out(text(tiny, seed).with_control(before)) for seed in (1, 2)]
    made = NET.out(net).copy().set_cond_hint(HINT.flip(1).movedim(-1, 1), 0.9, (0.1, 0.6), tiny.vae)
    made.set_previous_controlnet(sides[0][0][1]["control"])
    for [[_, extra]] in sides:
        extra |= {"control": made, "control_apply_to_uncond": True}
    positive, negative = (CONDITIONING.back(side) for side in sides)
    assert positive.controls == negative.controls
    assert positive.controls[0] is before
    added = positive.controls[1]
    assert (added.net, added.strength, added.start, added.end, added.vae) == (net, 0.9, 0.1, 0.6, tiny.vae)
    assert torch.equal(added.hint, HINT.flip(1))
    assert positive.shares_controls
    made.strength = 0.2
    assert CONDITIONING.back(sides[0]).controls[1].strength == 0.2


def test_a_packs_own_kind_of_controlnet_is_refused(tiny: Checkpoint, net: ControlNet) -> None:
    class Advanced(PackControlNet):
        """It may compute anything."""

    side = CONDITIONING.out(text(tiny, 1))
    side[0][1]["control"] = Advanced(net)
    with pytest.raises(ValueError, match="a ControlNet of a pack's own class .*Advanced; expected one that"):
        CONDITIONING.back(side)


def test_packs_load_a_controlnet_and_call_the_nodes_by_their_methods(tiny: Checkpoint, folders: Folders) -> None:
    names = shim_names(folders, NODES, border())
    loaded = names["comfy.controlnet"]["load_controlnet"](str(folders.path("controlnet", "joint.safetensors")))
    assert isinstance(loaded, names["comfy.controlnet"]["ControlBase"])
    assert not isinstance(loaded, names["comfy.controlnet"]["T2IAdapter"])
    sides = [CONDITIONING.out(text(tiny, seed)) for seed in (1, 2)]
    apply = names["nodes"]["ControlNetApplyAdvanced"]().apply_controlnet
    positive, _ = apply(*sides, loaded, HINT, 0.5, 0.0, 0.8, vae=tiny.vae)
    [control] = CONDITIONING.back(positive).controls
    assert (control.strength, control.end, control.net) == (0.5, 0.8, loaded.net)
    [again] = names["nodes"]["ControlNetLoader"]().load_controlnet("joint.safetensors")
    assert replace(again.net, recipe=loaded.net.recipe).key == loaded.net.key
