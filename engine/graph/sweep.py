"""A workflow as an experiment: its one sampler, the decoder behind it, and the graphs of cells, films and levels.

A cell is the way to the decoded picture with other values on the sampler, and the distance of its latent from that of
a reference run. The reference is a second sampler in the same graph, so the node cache makes it once for all cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.workflow import Link, Workflow, WorkflowNode

__all__ = ["CACHES", "GUIDANCE", "SEEDS", "SWEPT", "Sweep", "cache_node", "find_sweep"]

SWEPT = ("sampler_name", "scheduler", "steps")
SEEDS = ("seed", "noise_seed")
GUIDANCE = "cfg"
REFERENCE, PICTURE, LATENT, DISTANCE = "lab_reference", "lab_picture", "lab_latent", "lab_distance"
FILM, LEVELS = "SamplerTrajectory", "SamplerLevels"
FRAMES = 8
FOLDER = "lab"
CACHES = {  # step caches by the name in reports: the node, and the input that says how much is left out
    "first_block": ("ApplyFBCacheOnModel", "residual_diff_threshold"),
    "teacache": ("ApplyTeaCache", "threshold"),
    "magcache": ("ApplyMagCache", "threshold"),
    "taylorseer": ("ApplyTaylorSeer", "interval"),
    "easycache": ("EasyCache", "reuse_threshold"),
    "lazycache": ("LazyCache", "reuse_threshold"),
}
COUNTS = ("taylorseer",)  # whose number is whole


@dataclass(frozen=True, slots=True)
class Sweep:
    """A workflow with exactly one node whose sampler, schedule and steps are written, and a decoder behind it."""

    workflow: Workflow
    sampler: str
    decoder: str

    @property
    def values(self) -> dict[str, Any]:
        """What the sampler's inputs say now, without its links."""
        inputs = self.workflow.nodes[self.sampler].inputs
        return {name: value for name, value in inputs.items() if not isinstance(value, Link)}

    @property
    def seed_name(self) -> str | None:
        """Which input holds the seed."""
        return next((name for name in SEEDS if name in self.values), None)

    def cell(self, reference: Mapping[str, Any]) -> Workflow:
        """Picture, latent and distance from a reference run; `reference` has that run's sampler, schedule, steps."""
        nodes = self._until(self.decoder)
        sampler = nodes[self.sampler]
        made, exact = Link(self.sampler, 0), Link(REFERENCE, 0)
        nodes[REFERENCE] = WorkflowNode(sampler.class_type, {**sampler.inputs, **reference}, {"title": "Reference"})
        nodes[PICTURE] = _saved(Link(self.decoder, 0), "picture")
        nodes[LATENT] = WorkflowNode("SaveLatent", {"samples": made, "filename_prefix": f"{FOLDER}/latent"})
        nodes[DISTANCE] = WorkflowNode("LatentDistance", {"samples": made, "reference": exact})
        return Workflow(nodes)

    def film(self) -> Workflow | None:
        """The same run with the state and the estimate after some of its steps as pictures; only of a KSampler."""
        nodes = self._until(self.decoder)
        sampler, decoder = nodes[self.sampler], nodes[self.decoder]
        if sampler.class_type != "KSampler":
            return None
        nodes[self.sampler] = WorkflowNode(FILM, {**sampler.inputs, "frames": FRAMES}, sampler.meta)
        for slot, name in ((1, "state"), (2, "denoised")):
            nodes[f"lab_{name}_decoded"] = replace(
                decoder, inputs={**decoder.inputs, "samples": Link(self.sampler, slot)}
            )
            nodes[f"lab_{name}"] = _saved(Link(f"lab_{name}_decoded", 0), name)
        del nodes[self.decoder]
        return Workflow(nodes)

    def levels(self, samplers: str, schedules: str, steps: str) -> Workflow:
        """What leads to the sampler's model, and the node that tells its levels; lists are comma-separated."""
        inputs = self.workflow.nodes[self.sampler].inputs
        model = inputs.get("model")
        if not isinstance(model, Link):
            raise BadValue(f"node {self.sampler}.model", model, "a link to a model")
        asked = {"model": model, "samplers": samplers, "schedules": schedules, "steps": steps}
        asked |= {"denoise": inputs["denoise"]} if isinstance(inputs.get("denoise"), int | float) else {}
        return Workflow({**self._until(model.source), "lab_levels": WorkflowNode(LEVELS, asked)})

    def _until(self, node_id: str) -> dict[str, WorkflowNode]:
        """A node and everything before it, in the order of the workflow."""
        wanted, waiting = set[str](), [node_id]
        while waiting:
            current = waiting.pop()
            if current not in wanted and current in self.workflow.nodes:
                wanted.add(current)
                inputs = self.workflow.nodes[current].inputs
                waiting += [value.source for value in inputs.values() if isinstance(value, Link)]
        return {name: node for name, node in self.workflow.nodes.items() if name in wanted}


def find_sweep(workflow: Workflow) -> Sweep:
    """The one sampler and the decoder behind it; raises `BadValue` where there is none, or more than one sampler."""
    samplers = [i for i, written in workflow.nodes.items() if set(SWEPT) <= set(written.inputs)]
    if len(samplers) != 1:
        found = f"{len(samplers)} of them" + (f": nodes {', '.join(samplers)}" if samplers else "")
        raise BadValue("workflow", found, "one node with sampler_name, scheduler and steps, such as KSampler")
    latent = Link(samplers[0], 0)
    decoders = [
        i for i, written in workflow.nodes.items() if latent in written.inputs.values() and "vae" in written.inputs
    ]
    if not decoders:
        raise BadValue("workflow", "no decoder", f"a VAEDecode behind node {samplers[0]}")
    return Sweep(workflow, samplers[0], decoders[0])


def cache_node(text: str) -> tuple[str, dict[str, int | float]]:
    """The node of a step cache written as in reports, `first_block:0.1`, and its one input that is not the usual."""
    name, _, number = text.partition(":")
    allowed = f"NAME:NUMBER, NAME one of {', '.join(CACHES)}"
    if name not in CACHES:
        raise BadValue("step cache", text, allowed)
    class_type, main = CACHES[name]
    try:
        return class_type, {main: int(number) if name in COUNTS else float(number)}
    except ValueError as error:
        raise BadValue("step cache", text, allowed) from error


def _saved(images: Link, name: str) -> WorkflowNode:
    return WorkflowNode("SaveImage", {"images": images, "filename_prefix": f"{FOLDER}/{name}"})
