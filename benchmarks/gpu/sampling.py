"""The eager network through the sampler core: how long, what share of the peak, and where the time goes."""

import time
import warnings
from collections import Counter as Tally
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.subjects import Subject, large, medium, operations
from sigmagraph.engine.sampling import PhiloxNoise

TARGET_BF16_S, TARGET_TURBO_S = 3.2, 0.30
KINDS = (
    ("attention", ("flash", "fmha", "sdpa", "attention", "softmax")),
    ("products", ("gemm", "nvjet", "cutlass", "xmma", "sm90", "mm", "linear")),
    ("host copies", ("memcpy htod", "memcpy dtoh")),
    ("norms", ("norm",)),
    ("copies", ("cat", "copy", "memcpy")),
)
COPIES = ("Memcpy HtoD", "Memcpy DtoH")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def eager(bench: Bench) -> None:
    """Large, 25 guided steps at 1024 and at 512; Turbo's 4 steps; the forward alone; Medium."""
    subject = large(bench)
    subject.sampled(steps=2)
    took = bench.timed(subject.sampled, 2, 0)
    peak = bench.peak_gb(lambda: subject.sampled(steps=2))
    is_finite = bool(torch.isfinite(subject.sampled(steps=2)).all())
    text = f"{steps_text(bench, subject, took)}; target {TARGET_BF16_S} s; adds {peak:.2f} GB; finite {is_finite}"
    bench.say("Large 1024, guided", text, large_s=took, added_gb=peak)
    _forward_alone(bench, subject, took / subject.steps)
    took = bench.timed(lambda: subject.sampled(scale=1.0, steps=4), 3)
    bench.say("Turbo 1024, 4 steps", f"{took:.3f} s; target {TARGET_TURBO_S} s", turbo_s=took)
    half = subject.pixels // 2
    took = bench.timed(lambda: subject.sampled(width=half, height=half), 2)
    each_ms = took / subject.steps * 1e3
    bench.say(f"Large {half}, guided", f"{took:.2f} s, {each_ms:.1f} ms a step", large_half_s=took)
    other = medium(bench)
    took = bench.timed(other.sampled, 2)
    bench.say("Medium 1024, guided", steps_text(bench, other, took), medium_s=took)


def steps_text(bench: Bench, subject: Subject, took: float) -> str:
    """Seconds, milliseconds a step, and the share of the matrix peak that was measured."""
    count = subject.steps * operations(subject.shape, subject.pixels, 2, subject.tokens)
    peak = bench.facts.get("machine.bf16_flops")
    share = f" = {count / took / peak:.0%} of the measured peak" if peak else ""
    each_ms = took / subject.steps * 1e3
    return f"{took:.2f} s, {subject.steps} steps of {each_ms:.1f} ms, {count / took / 1e12:.0f} TFLOP/s{share}"


def _forward_alone(bench: Bench, subject: Subject, step_s: float) -> None:
    """The network without the sampler around it, and how long the host needs to enqueue it."""
    inputs, alone = subject.inputs(), subject.inputs(1)
    with torch.inference_mode():
        forward = bench.timed(lambda: subject.network(*inputs), 5, 2)
        start = time.perf_counter()
        subject.network(*inputs)
        enqueued = time.perf_counter() - start
        bench.wait()
        one = bench.timed(lambda: subject.network(*alone), 3)
    text = f"{forward * 1e3:.1f} ms; the sampler adds {(step_s - forward) * 1e3:.1f} ms a step"
    figures = {"forward_s": forward, "enqueue_s": enqueued, "forward_one_s": one}
    bench.say(
        "Large forward alone",
        f"{text}; enqueued in {enqueued * 1e3:.1f} ms; batch of one {one * 1e3:.1f} ms",
        **figures,
    )


def profile_of(bench: Bench, subject: Subject, name: str) -> None:
    """Three steps: time by kind of kernel, copies to and from the host, and waits."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.has_cuda else [])]
    with profile(activities=activities) as record:
        subject.sampled(steps=3)
        bench.wait()
    averages = record.key_averages()
    spent: Tally[str] = Tally()
    for event in averages:
        if event.device_type.name == ("CUDA" if bench.has_cuda else "CPU"):
            spent[_kind(event.key)] += event.self_device_time_total if bench.has_cuda else event.self_cpu_time_total
    total = max(sum(spent.values()), 1)
    shares = ", ".join(f"{kind} {us / total:.0%} = {us / 3e3:.1f} ms" for kind, us in spent.most_common())
    figures = {f"{kind.replace(' ', '_')}_ms": us / 3e3 for kind, us in spent.items()}
    bench.say(f"device time of a step, {name}", shares, **figures)
    _traffic(bench, record.events(), name)
    order = "self_device_time_total" if bench.has_cuda else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=60, max_name_column_width=120)
    (bench.out / f"profile_{name}.txt").write_text(table)


def _kind(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, words in KINDS if any(word in name for word in words)), "elementwise")


def _traffic(bench: Bench, events: Iterable[Any], name: str) -> None:
    found = list(events)
    to_device, back = ([event for event in found if word in event.name] for word in COPIES)
    waits = [event for event in found if event.name in WAITS]
    pageable = sum("Pageable" in event.name for event in (*to_device, *back))
    waited = sum(event.cpu_time_total for event in waits) / 1e3
    copies = f"to the device {len(to_device)}, back {len(back)}, of all {pageable} pageable"
    text = f"{copies}; waits {len(waits)}, together {waited:.1f} ms"
    bench.say(f"copies in three steps, {name}", text, to_device=len(to_device), back=len(back), waits=len(waits))


def samplers(bench: Bench) -> None:
    """What samplers with noise cost beside Euler, per evaluation, at 8 steps."""
    subject = large(bench)
    base = bench.timed(lambda: subject.sampled(steps=8), 1) / 8
    bench.say("euler", f"{base * 1e3:.1f} ms an evaluation", euler_s=base)
    for name, calls in (
        ("dpmpp_2m", 8),
        ("dpmpp_2m_sde", 8),
        ("dpmpp_2m_sde_gpu", 8),
        ("dpmpp_sde", 15),
        ("uni_pc", 8),
    ):
        took = bench.once(lambda name=name: subject.sampled(steps=8, sampler=name)) / calls  # type: ignore[misc]
        waits = _waits(bench, subject, name)
        text = f"{took * 1e3:.1f} ms an evaluation; in a run of 4 steps the host waits {waits} times"
        bench.say(name, text, **{f"{name}_s": took, f"{name}_waits": waits})


def _waits(bench: Bench, subject: Subject, sampler: str) -> int:
    """How often a run makes the host wait for the device, by CUDA's own account; 0 without CUDA."""
    if not bench.has_cuda:
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            subject.sampled(steps=4, sampler=sampler)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in found)


def noise(bench: Bench) -> None:
    """Counter noise: equal on the CPU and the device, bit for bit, and its cost."""
    here = torch.empty(4, 16, 128, 128)
    there = here.to(bench.device)
    is_equal = torch.equal(PhiloxNoise(123).initial(here), PhiloxNoise(123).initial(there).cpu())
    took = bench.timed(lambda: PhiloxNoise(123).initial(there), 3)
    bench.say("counter noise of four latents", f"equal to the CPU's {is_equal}; {took * 1e3:.1f} ms", equal=is_equal)


def cuda_graph(bench: Bench) -> None:
    """One forward at 512 and batch 1, where the host can be slower than the card: eager against a captured graph."""
    subject = large(bench)
    inputs = subject.inputs(1, subject.pixels // 2)
    count = operations(subject.shape, subject.pixels // 2, 1, subject.tokens)
    with torch.inference_mode():
        plain = bench.timed(lambda: subject.network(*inputs), 10, 3)
        bench.say("eager 512", f"{plain * 1e3:.2f} ms, {count / plain / 1e12:.0f} TFLOP/s", eager_512_s=plain)
        if bench.needs_cuda("captured 512"):
            return
        replay, found = _captured(subject, inputs)
        took = bench.timed(replay, 10)
        is_equal = torch.equal(found, subject.network(*inputs))
    text = f"{took * 1e3:.2f} ms, {count / took / 1e12:.0f} TFLOP/s; equal {is_equal}"
    bench.say("captured 512", text, graph_512_s=took)


def _captured(subject: Subject, inputs: tuple[Tensor, ...]) -> tuple[Any, Tensor]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            subject.network(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = subject.network(*inputs)
    return graph.replay, found
