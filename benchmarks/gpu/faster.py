"""What would make Large faster: blocks compiled one by one, and float8 products."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.subjects import Subject, large, relative_error

LARGEST_FP8 = 448.0
OTHER_SIZES = ((1344, 768), (640, 1536), (512, 512))
PRODUCTS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "attn2.qkv", "attn2.proj")
TARGET_FP8_S = 2.4


def graphs() -> int:
    """Graphs that torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


@contextmanager
def compiled(bench: Bench, network: nn.Module, *, is_dynamic: bool | None = None) -> Iterator[None]:
    """Every block compiled by itself for as long as the context lasts."""
    torch._dynamo.reset()
    backend = "eager" if bench.is_dry else "inductor"
    blocks: list[nn.Module] = list(network.joint_blocks)  # type: ignore[arg-type]
    for block in blocks:
        block.compile(fullgraph=True, backend=backend, dynamic=is_dynamic)
    try:
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None


def compile_static(bench: Bench) -> None:
    """As torch decides: the first size is compiled for itself, another one makes the graphs dynamic."""
    _compile(bench, None)


def compile_dynamic(bench: Bench) -> None:
    """Dynamic from the first: two graphs for every size."""
    _compile(bench, True)


def _compile(bench: Bench, is_dynamic: bool | None) -> None:
    subject = large(bench)
    reference = subject.sampled()
    with compiled(bench, subject.network, is_dynamic=is_dynamic):
        before = graphs()
        warm = bench.once(lambda: subject.sampled(steps=1))
        bench.say("first step", f"{warm:.1f} s, {graphs() - before} graphs", first_step_s=warm)
        before = graphs()
        took = bench.timed(subject.sampled, 2, 0)
        error = relative_error(subject.sampled(), reference)
        text = f"{took:.2f} s, {took / subject.steps * 1e3:.1f} ms a step; from eager {error:.1e}"
        bench.say("Large 1024, guided", f"{text}; {graphs() - before} more graphs", large_s=took, error=error)
        took = bench.timed(lambda: subject.sampled(scale=1.0, steps=4), 3)
        bench.say("Turbo 1024, 4 steps", f"{took:.3f} s; {graphs() - before} more graphs", turbo_s=took)
        _other_sizes(bench, subject)


def _other_sizes(bench: Bench, subject: Subject) -> None:
    for width, height in OTHER_SIZES:
        if bench.left() < 40:
            return
        if bench.is_dry:
            width, height = width // 8, height // 8
        before = graphs()
        first = bench.once(lambda: subject.sampled(steps=1, width=width, height=height))  # noqa: B023  # called here
        again = bench.once(lambda: subject.sampled(steps=2, width=width, height=height)) / 2  # noqa: B023
        text = f"first step {first:.1f} s, then {again * 1e3:.1f} ms, {graphs() - before} more graphs"
        bench.say(f"{width} x {height}", text, graphs=graphs() - before)


class Float8Linear(nn.Module):
    """A linear layer with float8 weights and inputs, and a bfloat16 result.

    One scale for each of them, or with `by_row` one for each row of the inputs and each output.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, plain: nn.Linear, *, by_row: bool = False) -> None:
        super().__init__()
        self.by_row = by_row
        largest = plain.weight.abs().amax(dim=1, keepdim=True) if by_row else plain.weight.abs().amax()
        scale = largest.float() / LARGEST_FP8
        self.register_buffer("weight", (plain.weight.float() / scale).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale.t().contiguous() if by_row else scale)
        self.bias = plain.bias

    def forward(self, tokens: Tensor) -> Tensor:
        rows = tokens.flatten(0, -2)
        largest = rows.abs().amax(dim=1, keepdim=True) if self.by_row else rows.abs().amax()
        scale = (largest.float() / LARGEST_FP8).clamp(min=1e-12)
        stored = (rows / scale.to(rows.dtype)).clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn)
        product: Tensor = torch._scaled_mm(
            stored,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=tokens.dtype,
            use_fast_accum=True,
        )
        shaped: Tensor = product.unflatten(0, tokens.shape[:-1])
        return shaped


@contextmanager
def in_float8(network: nn.Module, *, by_row: bool = False) -> Iterator[list[nn.Module]]:
    """Every product of the blocks in float8 for as long as the context lasts."""
    places = {
        f"joint_blocks.{i}.{stream}.{path}"
        for i in range(len(network.joint_blocks))  # type: ignore[arg-type]
        for stream in ("context_block", "x_block")
        for path in PRODUCTS
    }
    kept = {name: module for name, module in network.named_modules() if name in places}
    for name, module in kept.items():
        assert isinstance(module, nn.Linear)
        network.set_submodule(name, Float8Linear(module, by_row=by_row))
    try:
        yield list(kept.values())
    finally:
        for name, module in kept.items():
            network.set_submodule(name, module)


def fp8(bench: Bench) -> None:
    """Large with float8 products, one scale a tensor: one product, the run eager and compiled, and its error."""
    _fp8(bench, by_row=False)


def fp8_by_row(bench: Bench) -> None:
    """The same with a scale for every row of the inputs: quantising needs one pass, which compiled code can fuse."""
    _fp8(bench, by_row=True)


def _fp8(bench: Bench, *, by_row: bool) -> None:
    subject = large(bench)
    reference = subject.sampled()
    with torch.inference_mode(), in_float8(subject.network, by_row=by_row) as plain:
        _one_product(bench, plain[0], by_row=by_row)
        took = bench.timed(subject.sampled, 1)
        error = relative_error(subject.sampled(), reference)
        bench.say("Large 1024, eager", f"{took:.2f} s; from bf16 {error:.3f}", eager_s=took, error=error)
        if bench.left() < 60 and not bench.is_dry:
            bench.say("Large 1024, compiled", "no time left: not run")
            return
        with compiled(bench, subject.network):
            first = bench.once(lambda: subject.sampled(steps=1))
            took = bench.timed(subject.sampled, 2, 0)
            turbo = bench.timed(lambda: subject.sampled(scale=1.0, steps=4), 2)
        text = f"{took:.2f} s (first step {first:.0f} s); target {TARGET_FP8_S} s; Turbo {turbo:.3f} s"
        bench.say("Large 1024, compiled", text, large_s=took, turbo_s=turbo)


def _one_product(bench: Bench, plain: nn.Module, *, by_row: bool) -> None:
    """The widest product of a block, with and without quantising its input."""
    assert isinstance(plain, nn.Linear)
    rows = 64 if bench.is_dry else 8192
    tokens = torch.randn(rows, plain.in_features, device=bench.device, dtype=torch.bfloat16)
    quick = Float8Linear(plain, by_row=by_row)
    count = 2 * rows * plain.in_features * plain.out_features
    rates = [count / bench.timed(partial(call, tokens), 10, 2) / 1e12 for call in (plain, quick)]
    error = relative_error(quick(tokens), plain(tokens))
    text = f"bf16 {rates[0]:.0f}, fp8 with quantising {rates[1]:.0f} TFLOP/s; error {error:.3f}"
    bench.say("one q, k, v product", text, bf16_tflops=rates[0], fp8_tflops=rates[1], error=error)
