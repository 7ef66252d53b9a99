"""Weights that are not where they are used: blocks streamed from host memory, and files loaded to the device."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.subjects import MEDIUM, TINY_MEDIUM, bytes_of, large
from sigmagraph.engine.models.arch import MMDiT
from sigmagraph.engine.models.load import load_diffusion_model


class Belt:
    """Equal blocks in pinned host memory and two buffers on the device, filled in turn by a stream of copies."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self.block = blocks[0]
        self.host = [_flat(block).cpu().pin_memory() for block in blocks]
        self.buffers = [torch.empty_like(self.host[0], device=device) for _ in range(2)]
        self.views = [_views(self.block, flat) for flat in self.buffers]
        self.stream = torch.cuda.Stream(device)
        self.ready, self.free = ([torch.cuda.Event() for _ in range(2)] for _ in range(2))
        for event in self.free:
            event.record()

    def fetch(self, place: int) -> None:
        """Start to copy the weights of a block."""
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(self.free[place % 2])
            self.buffers[place % 2].copy_(self.host[place], non_blocking=True)
            self.ready[place % 2].record(self.stream)

    def run(self, place: int, arguments: Sequence[Tensor]) -> object:
        """A block's forward, while the next one's weights travel."""
        if place == 0:
            self.fetch(0)
        if place + 1 < len(self.host):
            self.fetch(place + 1)
        torch.cuda.current_stream().wait_event(self.ready[place % 2])
        result: object = functional_call(self.block, self.views[place % 2], tuple(arguments))
        self.free[place % 2].record()
        return result


class OnBelt(nn.Module):
    """A block whose weights come by belt."""

    def __init__(self, belt: Belt, place: int) -> None:
        super().__init__()
        self.belt, self.place = belt, place

    def forward(self, *arguments: Tensor) -> object:
        return self.belt.run(self.place, arguments)


def _flat(block: nn.Module) -> Tensor:
    return torch.cat([parameter.reshape(-1) for parameter in block.parameters()])


def _views(block: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """The block's parameters by name, read from `flat`."""
    sizes = [parameter.numel() for parameter in block.parameters()]
    pairs = zip(block.named_parameters(), flat.split(sizes), strict=True)
    return {name: view.view(parameter.shape) for (name, parameter), view in pairs}


def streamed(bench: Bench) -> None:
    """A forward of Large whose blocks stream from host memory: equal, how fast, over how little memory."""
    if bench.needs_cuda("streamed blocks"):
        return
    subject, inputs = large(bench), large(bench).inputs()
    network, blocks = subject.network, subject.network.joint_blocks
    with torch.inference_mode():
        reference = network(*inputs).clone()
        resident = bench.timed(lambda: network(*inputs), 3)
    belt = Belt(list(blocks)[:-1], bench.device)
    network.joint_blocks = nn.ModuleList([*(OnBelt(belt, i) for i in range(len(blocks) - 1)), blocks[-1]])
    try:
        with torch.inference_mode():
            is_equal = torch.equal(network(*inputs), reference)
            took = bench.timed(lambda: network(*inputs), 3)
    finally:
        network.joint_blocks = blocks
    moved, buffers = bytes_of(belt.host), bytes_of(belt.buffers)
    text = (
        f"{took * 1e3:.0f} ms against {resident * 1e3:.0f} resident; equal {is_equal}; {moved / 1e9:.1f} GB a forward"
    )
    rates = f"{moved / took / 1e9:.0f} GB/s; buffers {buffers / 1e9:.2f} GB"
    bench.say("Large 1024, guided", f"{text} at {rates}", streamed_s=took, equal=is_equal, bytes_s=moved / took)


def loading(bench: Bench) -> None:
    """A file of SD3.5 Medium's size to the device, its pages in memory, beside safetensors' own loader."""
    from safetensors.torch import load_file

    with TemporaryDirectory() as folder:
        path = Path(folder) / "medium.safetensors"
        size = _write_random(path, MMDiT, bench.is_dry)
        first, again = (bench.once(lambda: load_diffusion_model(path, bench.device).network) for _ in range(2))
        plain = bench.once(lambda: load_file(path, device=str(bench.device)))
    rate = f"{size / again / 1e9:.1f} GB/s"
    text = f"{size / 1e9:.1f} GB: first {first:.2f} s, again {again:.2f} s ({rate}); load_file {plain:.2f} s"
    bench.say("diffusion model", text, first_s=first, again_s=again, load_file_s=plain)


def _write_random(path: Path, build: type[MMDiT], is_tiny: bool) -> int:
    """A safetensors file of bfloat16 noise in the published layout; its size in bytes."""
    with torch.device("meta"):
        sizes = {name: tensor.shape for name, tensor in build(TINY_MEDIUM if is_tiny else MEDIUM).state_dict().items()}
    header: dict[str, object] = {}
    end = 0
    for name, shape in sizes.items():
        start, end = end, end + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = torch.randn(1 << 22).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, end, len(noise)):
            file.write(noise[: end - start])
    return end
