"""How far step caches lead off on the demo checkpoint, and how well each run's own estimate says so.

    python -m benchmarks.step_caches [--prompts 200] [--csv FILE] [--plot FILE]

For each held-out prompt of the demo (its seed is its place in the list) the whole run, and one under each cache: euler
on `simple`, 20 steps, guidance 4, one picture of 128 x 128. Drift is the distance of the final latents, as root mean
square in units of the whole run's spread. Printed: predictions left out, seconds against the whole run's, the median
drift measured and estimated, and how far apart the two are. With `--csv` a run that was broken off goes on. Exit code 1
where fewer than `ENOUGH` of the estimates are within `FACTOR` of what was measured.
"""

import argparse
import csv
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.demo.measure import GUIDANCE, LATENT_SIDE, STEPS, held_out
from sigmagraph.engine.models import Model, load_checkpoint
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.value import StepCache
from sigmagraph.engine.sampling import ComfyNoise, Sampling, find_schedule, run_sigmas
from sigmagraph.engine.sampling.caches import FirstBlock, MagCache, TaylorSeer, TeaCache
from sigmagraph.engine.sampling.caches.caching import CacheReport
from sigmagraph.engine.sampling.guidance import EasyCache, LazyCache

CHECKPOINT = Path(__file__).parents[1] / "models/checkpoints/sigmagraph-demo.safetensors"
CACHES: Sequence[StepCache] = (
    FirstBlock(0.1),
    TeaCache(0.15),
    MagCache(0.05, start=0.2),
    TaylorSeer(2),
    EasyCache(0.1),
    LazyCache(0.1),
)
FACTOR, ENOUGH = 3.0, 0.95


class Row(NamedTuple):
    """One prompt under one cache."""

    cache: str
    prompt: int
    asked: int
    skipped: int
    estimate: float
    measured: float
    seconds: float
    whole_seconds: float

    @property
    def factor(self) -> float:
        """How many times the estimate is off, whichever way; 1 where nothing was left out."""
        if not self.skipped:
            return 1.0
        return max(self.estimate / self.measured, self.measured / self.estimate) if self.estimate else float("inf")


def sampled(
    model: Model, sides: tuple[Conditioning, Conditioning], seed: int
) -> tuple[Tensor, CacheReport | None, float]:
    """The final latent, what the cache did, and the seconds it took."""
    levels = run_sigmas(find_schedule("simple"), model.parameterisation.levels, STEPS)
    blank, reports = torch.zeros(1, 16, LATENT_SIDE, LATENT_SIDE), list[CacheReport]()
    guided = model.guided(*sides, GUIDANCE)
    run = Sampling(
        guided, blank, levels, model.parameterisation, "euler", noise=ComfyNoise(seed), on_cached=reports.append
    )
    began = time.perf_counter()
    final = run.run()
    return final, reports[0] if reports else None, time.perf_counter() - began


def measured(prompts: int, known: set[int]) -> Iterator[Row]:
    """A row for each prompt, but for those known already, and each cache."""
    model, clip, _ = load_checkpoint(CHECKPOINT)
    assert clip is not None
    empty = clip.encode("")
    for place, scene in enumerate(held_out(prompts)):
        if place in known:
            continue
        sides = clip.encode(scene.caption), empty
        plain, _, whole = sampled(model, sides, place)
        for cache in CACHES:
            final, report, seconds = sampled(model.with_step_cache(cache), sides, place)
            assert report is not None
            told = report.measured(final, plain)
            assert told.drift_measured is not None
            counts = told.asked, told.skipped
            yield Row(told.cache, place, *counts, told.drift_estimate, told.drift_measured, seconds, whole)


def read(path: Path | None) -> list[Row]:
    """Rows of whole prompts that an earlier run wrote."""
    if path is None or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [Row(a, int(b), int(c), int(d), *map(float, rest)) for a, b, c, d, *rest in list(csv.reader(file))[1:]]
    whole = [place for place in {row.prompt for row in rows} if sum(row.prompt == place for row in rows) == len(CACHES)]
    return [row for row in rows if row.prompt in whole]


def line(name: str, rows: Sequence[Row]) -> str:
    """One row of the table."""
    left_out = sum(row.skipped for row in rows) / sum(row.asked for row in rows)
    seconds = statistics.median(row.seconds / row.whole_seconds for row in rows)
    truth, guess = statistics.median(row.measured for row in rows), statistics.median(row.estimate for row in rows)
    ratio = statistics.median(row.measured / row.estimate for row in rows if row.estimate)
    factors = sorted(row.factor for row in rows)
    within = [sum(factor <= bound for factor in factors) / len(factors) for bound in (2.0, FACTOR)]
    return (
        f"| {name} | {left_out:.0%} | {seconds:.2f} | {truth:.3f} | {guess:.3f} | {ratio:.2f} | {within[0]:.1%} | "
        f"{within[1]:.1%} | {factors[-1]:.1f} |"
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Measured against estimated, a dot for each prompt and cache, with the band of `FACTOR`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, name in enumerate(dict.fromkeys(row.cache for row in rows)):
        dots = [(row.estimate, row.measured) for row in rows if row.cache == name and row.estimate]
        axes.scatter(*zip(*dots, strict=True), s=7, color=f"C{place}", label=name, alpha=0.6, linewidths=0)
    ends = [min(row.estimate for row in rows if row.estimate), max(row.measured for row in rows)]
    for factor, look in ((1.0, "-"), (FACTOR, ":"), (1 / FACTOR, ":")):
        axes.plot(ends, [end * factor for end in ends], look, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="drift, estimated in the run", ylabel="drift, measured")
    axes.legend(fontsize=7, title=f"dotted: a factor of {FACTOR:g}", title_fontsize=7)
    axes.grid(True, which="major", alpha=0.25)
    figure.savefig(path, metadata={"Software": None})


def main() -> int:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--csv", type=Path, help="write rows here as they come, and go on from what is there")
    parser.add_argument("--plot", type=Path, help="draw measured against estimated drift (needs matplotlib)")
    given = parser.parse_args()
    rows = read(given.csv)
    if given.csv is not None:
        given.csv.write_text(",".join(Row._fields) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    for row in measured(given.prompts, {row.prompt for row in rows}):
        rows.append(row)
        if given.csv is not None:
            with given.csv.open("a", encoding="utf-8") as file:
                file.write(",".join(map(str, row)) + "\n")
    by_cache: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_cache[row.cache].append(row)
    print(
        "| cache | left out | time | drift measured | estimated | measured / estimated | within 2 | "
        f"within {FACTOR:g} | worst |"
    )
    print("| --- " * 9 + "|")
    for name, found in by_cache.items():
        print(line(name, found))
    print(line("all", rows))
    if given.plot is not None:
        plot(rows, given.plot)
    close = sum(row.factor <= FACTOR for row in rows) / len(rows)
    print(f"{close:.1%} of {len(rows)} estimates within a factor of {FACTOR:g} (at least {ENOUGH:.0%})")
    return int(close < ENOUGH)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
