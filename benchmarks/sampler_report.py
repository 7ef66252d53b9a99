"""How close and of which order every sampler is: recorded runs made again, worst error each, measured orders.

    python -m benchmarks.sampler_report [--only NAME]

Errors are the largest difference over the root mean square of the recorded result (ComfyUI 0.3.64 on a Gaussian
mixture), in float64 and float32. Orders are the exponents with which the error falls from 64 to 256 steps (40 to 160
up to order 2) on a flow with a known path, noise switched off. Exit code 1 where a run or an order misses.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch

from sigmagraph.engine.sampling import SOLVERS
from tests.sampling import recorded
from tests.sampling.closed_form import measured_order
from tests.sampling.recorded import NARROW_TABLES, SAMPLERS, WIDE_TABLES, Outcome
from tests.sampling.test_orders import DETERMINISTIC

BOTH_SCALES = ("cfg4.5", "cfg1")
SHORTFALL = 0.35  # what a measured order may lack of the declared one


def kinds(only: str | None) -> Iterator[tuple[str, Iterable[Outcome]]]:
    """The recordings, kind by kind."""
    names = [name for name in SAMPLERS if only in (None, name)]
    for table in (*WIDE_TABLES, *NARROW_TABLES):
        scales = BOTH_SCALES if not table.startswith("short") else ("cfg4.5",)
        yield table, (outcome for name in names for outcome in recorded.grid(name, table, scales))
    for title, keys, again in (
        ("options", recorded.OPTIONS, recorded.with_options),
        ("img2img", recorded.IMAGES, recorded.from_image),
        ("inpaint", recorded.MASKS, recorded.masked),
        ("start, end, leftover", recorded.PARTS, recorded.part),
        ("parameterisations", recorded.WHOLE_RUNS, recorded.whole_run),
    ):
        yield title, (again(key) for key in keys if only is None or only in key.split("/"))


def goldens(only: str | None) -> bool:
    """Print the counts of every kind and the worst error of every sampler; whether all pass."""
    worst: dict[str, dict[str, float]] = defaultdict(dict)
    made = passed = 0
    print("recorded runs made again: passing of all")
    for title, outcomes in kinds(only):
        count = right = 0
        for outcome in outcomes:
            count, right = count + 1, right + outcome.passes
            kind = "f64" if title in WIDE_TABLES else "f32"
            worst[outcome.sampler][kind] = max(worst[outcome.sampler].get(kind, 0.0), outcome.error)
            worst[outcome.sampler]["share"] = max(
                worst[outcome.sampler].get("share", 0.0), outcome.error / outcome.limit
            )
            if not outcome.passes:
                print(f"  MISSED {outcome.key}: error {outcome.error:.2e}, limit {outcome.limit:.2e}")
        print(f"  {title:24} {right:5} of {count}")
        made, passed = made + count, passed + right
    print(f"  {'all':24} {passed:5} of {made}\n\nworst error of each sampler, and its largest share of a limit")
    for name, errors in worst.items():
        print(f"  {name:32} f64 {errors.get('f64', 0.0):.1e}  f32 {errors.get('f32', 0.0):.1e}  {errors['share']:.2f}")
    return passed == made


def orders(only: str | None) -> bool:
    """Print declared and measured order of every revision that has an ODE limit; whether all reach theirs."""
    print("\norders: declared, measured")
    enough = True
    for key, solver in DETERMINISTIC.items():
        if only not in (None, solver.name) or solver.on_device:
            continue
        found = measured_order(solver, *((64, 256) if solver.order > 2 else (40, 160)))
        enough &= found > solver.order - SHORTFALL
        print(f"  {key:32} {solver.order}  {found:.2f}{'' if found > solver.order - SHORTFALL else '  MISSED'}")
    return enough


def main() -> int:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", choices=[*SOLVERS], help="one sampler")
    only: str | None = parser.parse_args().only
    torch.set_num_threads(1)
    return 0 if goldens(only) & orders(only) else 1


if __name__ == "__main__":
    sys.exit(main())
