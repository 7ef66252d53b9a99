"""Short and long jobs at once on the demo checkpoint: what a short one waits, and what taking turns costs.

    OMP_NUM_THREADS=1 python -m benchmarks.interleaving [--long 3] [--short 24] [--rounds 3]

Long jobs sample 70 steps, short ones 4, all with seeds of their own. The long ones are submitted first, the short ones
at even intervals, spread over the time that all of them take one after the other. Each round runs all jobs one after
the other (`execute`, on one thread, without a scheduler), then at once, then one after the other again, so that a
machine that gets faster or slower favours neither. Printed, in time on the wall and, because other programs may run,
in processor time of the process: the 95th percentile of all short jobs from submission to result beside their median
alone; jobs done per second beside one after the other, the median of the rounds; and whether every picture is that of
the job alone, bit for bit. Exit code 1 where, on the wall, p95 is above twice the time alone or throughput more than
3 % below serial, or where a picture differs. A wall clock wants a machine with nothing else to do.
"""

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.graph.node import Node, UiResult, node
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import Image

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / "workflows" / "txt2img.json"
LONG_STEPS, SHORT_STEPS = 70, 4


@node("KeepImage", category="benchmark", output_node=True)
def keep_image(*, images: Image) -> UiResult:
    """Shows the picture itself, so that it can be compared."""
    return UiResult(ui={"images": [images]})


def planned(folders: Folders, steps: int, seed: int) -> Plan:
    """The demo workflow with other steps and seed, ending in `KeepImage`."""
    classes: dict[str, Node] = {**NODES, "SaveImage": keep_image}
    workflow = load_workflow(WORKFLOW)
    sampler = next(i for i, written in workflow.nodes.items() if written.class_type == "KSampler")
    saver = next(i for i, written in workflow.nodes.items() if written.class_type == "SaveImage")
    changed = workflow.with_inputs({sampler: {"steps": steps, "seed": seed}})
    pictures = dict(changed.nodes)
    pictures[saver] = type(pictures[saver])("SaveImage", {"images": pictures[saver].inputs["images"]})
    return plan(validate(type(changed)(pictures), classes, folders), folders)


def image_of(ui: Any) -> Tensor:
    """The picture a job made."""
    (shown,) = ui.values()
    image: Tensor = shown["images"][0]
    return image


class Span(NamedTuple):
    """A stretch of time on both clocks, seconds."""

    wall: float
    processor: float


def since(began: Span | None = None) -> Span:
    """The time that has passed; without a beginning, the clocks themselves."""
    wall, processor = began or (0.0, 0.0)
    return Span(time.perf_counter() - wall, time.process_time() - processor)


def alone(plans: Sequence[Plan], cache: MemoryCache, folders: Folders) -> tuple[list[Tensor], list[Span]]:
    """Each job after the other: pictures, and the time of each."""
    images, spans = [], []
    for job_plan in plans:
        began = since()
        result = execute(job_plan, folders, cache, around=torch.inference_mode).or_raise()
        spans.append(since(began))
        images.append(image_of(result.ui))
    return images, spans


def together(
    long: Sequence[Plan], short: Sequence[Plan], cache: MemoryCache, folders: Folders, pause_s: float
) -> tuple[list[Tensor], list[Span], Span]:
    """All at once, the short ones arriving one by one: pictures, the short jobs' times, the time of all."""
    scheduler = Scheduler(folders, cache, most_jobs=64, around=torch.inference_mode)
    began = since()
    tickets = [scheduler.submit(job_plan) for job_plan in long]
    spans: dict[int, Span] = {}

    def note(at: int, submitted: Span, done: object) -> None:
        spans[at] = since(submitted)

    for at, job_plan in enumerate(short):
        time.sleep(max(0.0, pause_s * (at + 1) - since(began).wall))
        submitted = since()
        tickets.append(scheduler.submit(job_plan))
        tickets[-1].future.add_done_callback(partial(note, at, submitted))
    images = [image_of(ticket.wait().or_raise().ui) for ticket in tickets]
    whole = since(began)
    scheduler.close()
    return images, [spans[at] for at in range(len(short))], whole


def warm_cache(folders: Folders) -> MemoryCache:
    """A cache that holds the model and the encoded prompts, so that only sampling and decoding are measured."""
    cache = MemoryCache()
    execute(planned(folders, 1, 0), folders, cache, around=torch.inference_mode).or_raise()
    return cache


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


class Round(NamedTuple):
    """One comparison: short jobs alone and among others, all jobs in turn and at once."""

    alone: list[Span]
    among: list[Span]
    serial: list[float]
    mixed: Span
    is_same: bool


def compared(long: Sequence[Plan], short: Sequence[Plan], folders: Folders) -> Round:
    """One after the other, at once, and one after the other again."""
    images, before = alone([*long, *short], warm_cache(folders), folders)
    pause_s = sum(span.wall for span in before) / (len(short) + 1)  # the short ones arrive as long as there is work
    mixed, among, whole = together(long, short, warm_cache(folders), folders, pause_s)
    _, after = alone([*long, *short], warm_cache(folders), folders)
    serial = [sum(span[clock] for span in (*before, *after)) / 2 for clock in (0, 1)]
    is_same = all(torch.equal(a, b) for a, b in zip(images, mixed, strict=True))
    return Round([*before[len(long) :], *after[len(long) :]], among, serial, whole, is_same)


def shared(plans: Sequence[Plan], together: int, folders: Folders) -> tuple[list[Tensor], float]:
    """All at once, up to so many evaluations in one forward: pictures, and processor seconds."""
    scheduler = Scheduler(
        folders, warm_cache(folders), most_jobs=64, around=torch.inference_mode, batch_evaluations=together
    )
    began = since()
    tickets = [scheduler.submit(job_plan) for job_plan in plans]
    images = [image_of(ticket.wait().or_raise().ui) for ticket in tickets]
    spent = since(began).processor
    scheduler.close()
    return images, spent


def compare_sharing(most: int, folders: Folders) -> None:
    """Print what forwards of several jobs cost and change, beside forwards of one."""
    plans = [planned(folders, 10, seed) for seed in range(most)]
    apart, alone_s = shared(plans, 1, folders)
    joined, joined_s = shared(plans, most, folders)
    difference = max(float((a - b).abs().max()) for a, b in zip(apart, joined, strict=True))
    print(f"{most} jobs of 10 steps: {alone_s:.2f} s of processor time apart, {joined_s:.2f} s in forwards of up to "
          f"{most} ({joined_s / alone_s:.2f}x); pictures differ by at most {difference:.1e}")  # fmt: skip


def main() -> int:
    """Print the figures; 1 where one misses its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", type=int, default=3)
    parser.add_argument("--short", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--together", type=int, default=0, help="instead: what sharing forwards costs and changes")
    options = parser.parse_args()
    folders = Folders(ROOT / "models", ROOT / "input", ROOT / "output", ROOT / "temp")
    if options.together:
        compare_sharing(options.together, folders)
        return 0
    rounds = []
    for at in range(options.rounds):
        seeds = range(1000 * at, 1000 * at + options.long + options.short)
        long = [planned(folders, LONG_STEPS, seed) for seed in seeds[: options.long]]
        short = [planned(folders, SHORT_STEPS, seed) for seed in seeds[options.long :]]
        rounds.append(compared(long, short, folders))
    held = []
    for clock, name in enumerate(("wall", "processor")):
        one = statistics.median(span[clock] for measured in rounds for span in measured.alone)
        worst = percentile([span[clock] for measured in rounds for span in measured.among], 0.95)
        rates = [measured.serial[clock] / measured.mixed[clock] for measured in rounds]
        rate = statistics.median(rates)
        print(f"{name}: short job alone {one * 1e3:.0f} ms, p95 {worst * 1e3:.0f} ms ({worst / one:.2f}x, budget 2); "
              f"throughput {rate:.3f} of serial ({min(rates):.3f} to {max(rates):.3f}, budget 0.97)")  # fmt: skip
        held.append(worst / one <= 2 and rate >= 0.97)
    is_same = all(measured.is_same for measured in rounds)
    print("pictures equal, bit for bit" if is_same else "pictures DIFFER")
    return 0 if is_same and held[0] else 1


if __name__ == "__main__":
    raise SystemExit(main())
