"""The way a picture takes in the product: weights as a file holds them, tables, compiled blocks, float8 products."""

from dataclasses import replace

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.sampling import TARGET_BF16_S, TARGET_TURBO_S, profile_of, steps_text
from benchmarks.gpu.subjects import Subject, large, medium, relative_error
from sigmagraph.engine.models.arch import MMDiT
from sigmagraph.engine.models.compiled import CompiledBlocks
from sigmagraph.engine.models.files.fp8 import scaled
from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.modulation_tables import MODULATION
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.memory.residency import RESIDENCY

TARGET_FP8_S = 2.4
OTHER_SIZES = ((1344, 768), (640, 1536), (512, 512))


def stored(subject: Subject, *, is_fp8: bool = False, on_host: bool = False) -> Subject:
    """The same network as a recipe of stored tensors, which its owner makes as it makes those of a file."""
    shape, model = subject.shape, subject.model
    held = {name: tensor.cpu() if on_host else tensor for name, tensor in subject.network.state_dict().items()}
    weights = {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda kept=tensor: kept)  # type: ignore[misc]
        for name, tensor in held.items()
    }
    recipe = Recipe.checked(
        "benchmark",
        "model",
        lambda: MMDiT(shape),
        scaled(weights) if is_fp8 else weights,
        model.placement,
        RESIDENCY,
        "joint_blocks.",
        MODULATION,
    )
    return replace(subject, model=replace(model, recipe=recipe))


def choose(bench: Bench, memory: str = "auto", compile_: str = "on") -> None:
    """What the sections compute with; every one begins with no network and no graphs."""
    torch._dynamo.reset()
    RESIDENCY.free()
    RESIDENCY.compiled = CompiledBlocks("eager" if bench.is_dry else "inductor")
    RESIDENCY.choices = MemoryChoices.parse("bf16", memory, str(bench.device), compile_)


def product(bench: Bench) -> None:
    """Large in bfloat16 as `serve` runs it: tables, compiled blocks; Turbo; other sizes; graphs and recompiles."""
    choose(bench)
    subject = stored(large(bench))
    _measured(bench, large(bench), subject, TARGET_BF16_S)
    _turbo(bench, subject)
    _other_sizes(bench, subject)


def product_fp8(bench: Bench) -> None:
    """Large with `--precision fp8` as `serve` runs it: products of the stored bytes as well."""
    choose(bench)
    subject = stored(large(bench), is_fp8=True)
    _measured(bench, large(bench), subject, TARGET_FP8_S)
    _turbo(bench, subject)


def product_medium(bench: Bench) -> None:
    """Medium in bfloat16 as `serve` runs it."""
    choose(bench)
    _measured(bench, medium(bench), stored(medium(bench)), None)


def product_eager(bench: Bench) -> None:
    """Large with tables and nothing compiled, as `run` makes it."""
    choose(bench, compile_="off")
    subject = stored(large(bench))
    subject.sampled(steps=1)
    took = bench.timed(subject.sampled, 1, 0)
    bench.say("Large 1024, guided", steps_text(bench, subject, took), large_s=took)


def _measured(bench: Bench, plain: Subject, subject: Subject, target: float | None) -> None:
    """The first step, which compiles, then whole runs: seconds, error from the eager network, memory."""
    reference = plain.sampled()
    first = bench.once(lambda: subject.sampled(steps=1))
    bench.say("first step", f"{first:.1f} s, {RESIDENCY.held()[-1][1]}; {_graphs()}", first_step_s=first)
    took = bench.timed(subject.sampled, 3, 0)
    error = relative_error(subject.sampled(), reference)
    text = f"{steps_text(bench, subject, took)}; from eager bf16 {error:.1e}; {_graphs()}"
    goal = f"; target {target} s" if target is not None else ""
    bench.say("1024, guided", text + goal, guided_s=took, error=error)
    peak, held = bench.peak_gb(lambda: subject.sampled(steps=2)), RESIDENCY.bytes_on(bench.device) / 1e9
    bench.say("memory", f"{held:.2f} GB of weights; adds {peak:.2f} GB", held_gb=held, added_gb=peak)


def _turbo(bench: Bench, subject: Subject) -> None:
    took = bench.timed(lambda: subject.sampled(scale=1.0, steps=4), 3)
    bench.say("Turbo 1024, 4 steps", f"{took:.3f} s; target {TARGET_TURBO_S} s; {_graphs()}", turbo_s=took)


def _other_sizes(bench: Bench, subject: Subject) -> None:
    for width, height in OTHER_SIZES:
        width, height = (side // 8 if bench.is_dry else side for side in (width, height))
        before = RESIDENCY.compiled.graphs
        first = bench.once(lambda: subject.sampled(steps=1, width=width, height=height))  # noqa: B023  # called here
        again = bench.timed(lambda: subject.sampled(steps=4, width=width, height=height), 2) / 4  # noqa: B023
        more = RESIDENCY.compiled.graphs - before
        text = f"first step {first:.1f} s, then {again * 1e3:.1f} ms, {more} more graphs"
        bench.say(f"{width} x {height}", text, graphs=more, step_s=again)


def streamed(bench: Bench) -> None:
    """Large within 12 GB, its blocks by belt from host memory: equal to resident, how fast, its peak."""
    if bench.needs_cuda("streamed blocks"):
        return
    choose(bench, compile_="off")
    sides, x = large(bench).conditionings(), torch.randn(1, 16, 128, 128, device=bench.device)
    expected = torch.cat(stored(large(bench)).model.predict(x, 0.5, sides)).clone()
    choose(bench, "10GB", "off")
    subject = stored(large(bench), on_host=True)
    found = torch.cat(subject.model.predict(x, 0.5, sides))
    is_equal = torch.equal(found, expected)
    took = bench.timed(lambda: subject.model.predict(x, 0.5, sides), 3)
    held = RESIDENCY.bytes_on(bench.device)
    peak = bench.peak_gb(lambda: subject.model.predict(x, 0.5, sides)) + held / 1e9
    moved = sum(weight.stored_bytes for name, weight in subject.model.recipe.base.items() if "joint_blocks" in name)
    moved -= subject.model.recipe.part().ahead_bytes[0]
    mode = RESIDENCY.held()[-1][1]
    text = f"{took * 1e3:.0f} ms a guided forward, {mode}; equal {is_equal}; peak {peak:.2f} GB"
    rate = f"{moved / 1e9:.1f} GB at {moved / took / 1e9:.0f} GB/s"
    bench.say("Large 1024, 10 GB", f"{text}; {rate}", streamed_s=took, equal=is_equal, peak_gb=peak)


def profiled(bench: Bench) -> None:
    """Where the time of a step goes: eager, and as `serve` runs it in bfloat16 and in float8."""
    profile_of(bench, large(bench), "eager")
    for name, is_fp8 in (("compiled", False), ("fp8", True)):
        choose(bench)
        subject = stored(large(bench), is_fp8=is_fp8)
        subject.sampled(steps=3)
        profile_of(bench, subject, name)


def _graphs() -> str:
    stats = RESIDENCY.compiled.stats()
    failure = f", failed: {stats['failure']}" if stats["failure"] else ""
    return f"{stats['graphs']} graphs, {stats['recompiles']} recompiles{failure}"
