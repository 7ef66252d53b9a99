"""Short and long jobs at once on the demo checkpoint: what a short one waits, and what taking turns costs.

    python -m benchmarks.interleaving [--long 3] [--short 24] [--rounds 3]

Long jobs sample 70 steps, short ones 4, all with seeds of their own. The long ones are submitted first, the short ones
at even intervals while those run. Times are processor time of the process, because other programs may run: from a
short job's submission to its end, all that the process did meanwhile. Printed: the short jobs' 95th percentile beside
their median alone, throughput beside one job after the other, and whether every result is that of the job alone, bit
for bit. Exit code 1 where p95 is above twice the time alone, throughput more than 3 % below serial, or a result
differs.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.execution.cache import MemoryCache
from engine.execution.folders import Folders
from engine.execution.run import execute
from engine.execution.scheduler import Scheduler
from engine.graph.document import load_workflow
from engine.graph.node import Node, UiResult, node
from engine.graph.plan import Plan, plan
from engine.graph.validate import validate
from nodes import NODES
from nodes.types import Image

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
    sampler = next(i for i, each in workflow.nodes.items() if each.class_type == "KSampler")
    saver = next(i for i, each in workflow.nodes.items() if each.class_type == "SaveImage")
    changed = workflow.with_inputs({sampler: {"steps": steps, "seed": seed}})
    pictures = dict(changed.nodes)
    pictures[saver] = type(pictures[saver])("SaveImage", {"images": pictures[saver].inputs["images"]})
    return plan(validate(type(changed)(pictures), classes, folders), folders)


def image_of(ui: Any) -> Tensor:
    """The picture a job made."""
    (shown,) = ui.values()
    image: Tensor = shown["images"][0]
    return image


def alone(plans: Sequence[Plan], cache: MemoryCache, folders: Folders) -> tuple[list[Tensor], list[float]]:
    """Each job after the other: pictures, and seconds of each."""
    images, seconds = [], []
    for each in plans:
        began = time.process_time()
        result = execute(each, folders, cache, around=torch.inference_mode).or_raise()
        seconds.append(time.process_time() - began)
        images.append(image_of(result.ui))
    return images, seconds


def together(
    long: Sequence[Plan], short: Sequence[Plan], cache: MemoryCache, folders: Folders, pause_s: float
) -> tuple[list[Tensor], list[float], float]:
    """All at once, the short ones arriving one by one: pictures, the short jobs' seconds, seconds in all."""
    scheduler = Scheduler(
        folders, cache, host_threads=1, most_jobs=64, around=torch.inference_mode, clock=time.process_time
    )
    busy = time.process_time()
    tickets = [scheduler.submit(each) for each in long]
    starts: list[float] = []
    ends: dict[int, float] = {}

    def note(at: int, done: object) -> None:
        ends[at] = time.process_time()

    for at, each in enumerate(short):
        while time.process_time() - busy < pause_s * (at + 1) and not all(ticket.is_done for ticket in tickets):
            time.sleep(0.005)
        starts.append(time.process_time())
        tickets.append(scheduler.submit(each))
        tickets[-1].future.add_done_callback(partial(note, at))
    images = [image_of(ticket.wait().or_raise().ui) for ticket in tickets]
    busy = time.process_time() - busy
    scheduler.close()
    return images, [ends[at] - start for at, start in enumerate(starts)], busy


def warm_cache(folders: Folders) -> MemoryCache:
    """A cache that holds the model and the encoded prompts, so that only sampling and decoding are measured."""
    cache = MemoryCache()
    execute(planned(folders, 1, 0), folders, cache, around=torch.inference_mode).or_raise()
    return cache


def main() -> int:
    """Print the figures; 1 where one misses its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", type=int, default=3)
    parser.add_argument("--short", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folders = Folders(ROOT / "models", ROOT / "input", ROOT / "output", ROOT / "temp")
    ratios, rates, is_same = [], [], True
    for at in range(options.rounds):
        seeds = range(1000 * at, 1000 * at + options.long + options.short)
        long = [planned(folders, LONG_STEPS, seed) for seed in seeds[: options.long]]
        short = [planned(folders, SHORT_STEPS, seed) for seed in seeds[options.long :]]
        images, seconds = alone([*long, *short], warm_cache(folders), folders)
        pause_s = sum(seconds) / (options.short + 1)  # the short ones arrive as long as there is work
        mixed, waited, busy = together(long, short, warm_cache(folders), folders, pause_s)
        one = statistics.median(seconds[options.long :])
        worst = sorted(waited)[min(len(waited) - 1, int(0.95 * len(waited)))]
        is_same &= all(torch.equal(a, b) for a, b in zip(images, mixed, strict=True))
        ratios.append(worst / one)
        rates.append(sum(seconds) / busy)
        print(f"round {at + 1}: short alone {one * 1e3:.0f} ms, p95 {worst * 1e3:.0f} ms ({worst / one:.2f}x); "
              f"throughput {sum(seconds) / busy:.3f} of serial")  # fmt: skip
    print(f"median of rounds: p95 {statistics.median(ratios):.2f}x (budget 2), "
          f"throughput {statistics.median(rates):.3f} of serial (budget 0.97), results "
          + ("equal, bit for bit" if is_same else "DIFFER"))  # fmt: skip
    return 0 if is_same and statistics.median(ratios) <= 2 and statistics.median(rates) >= 0.97 else 1


if __name__ == "__main__":
    raise SystemExit(main())
