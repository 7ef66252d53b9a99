"""The sections in order of worth, each with the seconds it needs; see the package's docstring."""

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu import machine, parts, peer, placement, product, sampling
from benchmarks.gpu.bench import Bench
from sigmagraph.engine.models.memory.residency import RESIDENCY

Section = Callable[[Bench], None]
SECTIONS: dict[str, tuple[float, Section]] = {
    "machine": (15, machine.machine),
    "product": (45, product.product),
    "product_fp8": (40, product.product_fp8),
    "eager": (30, sampling.eager),
    "peer": (25, peer.peer),
    "streamed": (20, product.streamed),
    "product_medium": (30, product.product_medium),
    "product_eager": (10, product.product_eager),
    "profile": (15, product.profiled),
    "cuda_graph": (10, sampling.cuda_graph),
    "noise": (3, sampling.noise),
    "attention": (8, machine.attention),
    "samplers": (15, sampling.samplers),
    "vae": (15, parts.vae),
    "vae_strips": (15, parts.vae_strips),
    "text": (15, parts.text),
    "loading": (20, placement.loading),
}


def main() -> int:
    """Run what was asked for; 1 where a section failed."""
    parser = argparse.ArgumentParser(description="How fast SD3.5 is on this machine's CUDA device.")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU: shows that the program runs")
    parser.add_argument("--seconds", type=float, default=285.0, help="what the run may take")
    parser.add_argument("--only", default="", help="sections to run, with commas")
    parser.add_argument("--list", action="store_true", help="name the sections")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder for results.md and results.json")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:16} {section.__doc__}" for name, (_, section) in SECTIONS.items()))
        return 0
    wanted = options.only.split(",") if options.only else list(SECTIONS)
    unknown = sorted(set(wanted) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if not options.dry and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --dry runs on a CPU")
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu") if options.dry else torch.device("cuda", 0)
    bench = Bench(device, options.out, options.seconds, options.dry)
    failed = [name for name in SECTIONS if name in wanted and _failed(bench, name)]
    return 1 if failed else 0


def _failed(bench: Bench, name: str) -> bool:
    """Run a section, if there is time for it; whether it failed. The others go on either way."""
    bench.section, (needed, section) = name, SECTIONS[name]
    if bench.left() < needed and not bench.is_dry:
        bench.say("skipped", f"{bench.left():.0f} s left, it needs {needed:.0f}")
        return False
    try:
        section(bench)
    except Exception as error:  # noqa: BLE001  # whatever a driver or a library raises: the other sections still count
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        bench.say("failed", f"{type(error).__name__}: {first[:200]}")
        return True
    finally:
        RESIDENCY.free()
        bench.tidy()
    return False


if __name__ == "__main__":
    sys.exit(main())
