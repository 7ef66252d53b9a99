"""Our MMDiT and VAE forward beside diffusers', on the same random weights and inputs, in one run.

    python -m benchmarks.mmdit_vae_vs_diffusers [--rounds 10] [--device cuda] [--threads 2] [--only real]

Times alternate ours, theirs, theirs, ours ... so that a busy machine slows both; the ratio is of the medians. Peak
memory is what one forward's tensors hold at once, above weights and inputs. Exit code 1 where a ratio is above the
case's bound. Cases called `real` have the widths of Medium and Large in bfloat16 and a few of their blocks.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sigmagraph.engine.models.arch.mmdit import MMDiT, MMDiTShape
from sigmagraph.engine.models.arch.vae import Autoencoder, VaeShape
from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.files.rename import mmdit_from_diffusers, vae_from_diffusers

Forward = Callable[[], Tensor]
# Of the output's rms; the two must compute the same thing to be compared.
LARGEST_DIFFERENCE = {torch.float32: 5e-4, torch.bfloat16: 0.15}


@dataclass(frozen=True)
class MMDiTCase:
    """A guided step of the transformer: cond and uncond in one batch."""

    depth: int
    pixels: int
    width: int
    dtype: torch.dtype = torch.float32
    batch: int = 2
    dual: int = 0  # of the first blocks
    most: float = 1.0  # of their time and peak

    def build(self, side: str, device: str) -> Forward:
        """The forward pass of one side."""
        theirs = SD3Transformer2DModel(
            num_layers=self.depth,
            attention_head_dim=64,
            num_attention_heads=self.width // 64,
            joint_attention_dim=4096,
            caption_projection_dim=self.width,
            pooled_projection_dim=2048,
            in_channels=16,
            out_channels=16,
            pos_embed_max_size=64,
            sample_size=32,
            qk_norm="rms_norm",
            dual_attention_layers=tuple(range(self.dual)),
        )
        _randomise(theirs, 0.02)
        theirs.to(self.dtype)
        side_px, batch = self.pixels // 8, self.batch
        x, context = _noise(batch, 16, side_px, side_px), _noise(batch, 154, 4096)
        pooled, timestep = _noise(batch, 2048), torch.full((batch,), 700.0, device=device)
        x, context, pooled = (tensor.to(device, self.dtype) for tensor in (x, context, pooled))
        if side == "theirs":
            theirs.to(device).eval()
            return lambda: theirs(x, context, pooled, timestep, return_dict=False)[0]
        ours = _ours(theirs, mmdit_from_diffusers, lambda shapes: MMDiT(MMDiTShape.from_tensors(shapes))).to(device)
        return lambda: ours(x, timestep, pooled, context)


@dataclass(frozen=True)
class VaeCase:
    """One picture through the encoder or the decoder."""

    channels: tuple[int, ...]
    pixels: int
    way: str
    dtype: torch.dtype = torch.float32
    most: float = 1.0  # of their time and peak

    def build(self, side: str, device: str) -> Forward:
        """The forward pass of one side."""
        levels = len(self.channels)
        theirs = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=self.channels,
            layers_per_block=2,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        _randomise(theirs, 0.05)
        theirs.to(self.dtype)
        image = _noise(1, 3, self.pixels, self.pixels).to(device, self.dtype)
        latent = _noise(1, 16, self.pixels // 8, self.pixels // 8).to(device, self.dtype)
        if side == "theirs":
            theirs.to(device).eval()
            decode: Forward = lambda: theirs.decode(latent, return_dict=False)[0]  # noqa: E731  # a pair of one-liners
            return decode if self.way == "decode" else lambda: theirs.encode(image).latent_dist.mean
        ours = _ours(theirs, vae_from_diffusers, lambda shapes: Autoencoder(VaeShape.from_tensors(shapes))).to(device)
        if device == "cpu":  # the order the product decodes and encodes in there
            image, latent = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (image, latent))
        return (lambda: ours.decode(latent)) if self.way == "decode" else (lambda: ours.encode(image)[0])


CASES: dict[str, MMDiTCase | VaeCase] = {
    "mmdit depth 4 width 256, 128 px": MMDiTCase(4, 128, 256),
    "mmdit depth 8 width 512, 512 px": MMDiTCase(8, 512, 512),
    "vae decode, 32 channels, 128 px": VaeCase((32, 64, 128, 128), 128, "decode"),
    "vae encode, 32 channels, 128 px": VaeCase((32, 64, 128, 128), 128, "encode"),
    "vae decode, 32 channels, 512 px": VaeCase((32, 64, 128, 128), 512, "decode"),
    "vae encode, 32 channels, 512 px": VaeCase((32, 64, 128, 128), 512, "encode"),
    "vae decode, 128 channels (real), 128 px": VaeCase((128, 256, 512, 512), 128, "decode"),
    "vae encode, 128 channels (real), 128 px": VaeCase((128, 256, 512, 512), 128, "encode"),
    "real: Medium, 4 blocks, 512 px, bf16": MMDiTCase(4, 512, 1536, torch.bfloat16, dual=2, most=1.03),
    "real: Medium, 2 blocks, 1024 px, bf16": MMDiTCase(2, 1024, 1536, torch.bfloat16, 1, 1, 1.03),
    "real: Large, 2 blocks, 512 px, bf16": MMDiTCase(2, 512, 2432, torch.bfloat16, most=1.03),
    "real: Large, 2 blocks, 1024 px, bf16": MMDiTCase(2, 1024, 2432, torch.bfloat16, 1, most=1.03),
    "real: vae decode, 512 px, bf16": VaeCase((128, 256, 512, 512), 512, "decode", torch.bfloat16, 0.85),
    "real: vae decode, 512 px, fp32": VaeCase((128, 256, 512, 512), 512, "decode", most=0.85),
    "real: vae encode, 512 px, fp32": VaeCase((128, 256, 512, 512), 512, "encode"),
}


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _randomise(model: nn.Module, scale: float) -> None:
    """Matrices normal with `scale`, so that nothing is zero; vectors as torch initialised them."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=scale)


def _ours(
    theirs: nn.Module,
    rename: Callable[[Any], dict[str, StoredTensor]],
    build: Callable[[dict[str, tuple[int, ...]]], Any],
) -> Any:
    """Our module with their weights."""
    stored = {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)  # type: ignore[misc]
        for name, tensor in theirs.state_dict().items()
    }
    weights = rename(stored)
    ours = build({name: tensor.shape for name, tensor in weights.items()})
    ours.load_state_dict({name: tensor.read().clone() for name, tensor in weights.items()})
    return ours.to(next(theirs.parameters()).dtype).eval()


def _built(name: str, side: str, device: str) -> Forward:
    """One side of a case; the seed gives both sides the same weights."""
    torch.manual_seed(0)
    return CASES[name].build(side, device)


def _time(forward: Forward, options: argparse.Namespace) -> float:
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    start = clock()
    forward()
    if options.device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def _peaked(forward: Forward, device: str) -> tuple[Tensor, int]:
    """What a forward gives, and the most that tensors made during it hold at once, by torch's own account."""
    if device == "cuda":
        forward()  # libraries take their work space once
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = forward()
        return result, torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = forward()
    kineto = record.profiler.kineto_results  # type: ignore[union-attr]  # set once the block is left
    changes = sorted((e.start_ns(), e.nbytes()) for e in kineto.events() if e.name() == "[memory]")
    return result, max(accumulate(size for _, size in changes))


def _compare(name: str, options: argparse.Namespace) -> bool:
    """Measure one case and print its line; whether ours is as fast and needs no more memory."""
    sides = {side: _built(name, side, options.device) for side in ("ours", "theirs")}
    (our_result, our_peak), (their_result, their_peak) = (
        _peaked(sides[side], options.device) for side in ("ours", "theirs")
    )
    rms = their_result.float().square().mean().sqrt().item()
    difference = (our_result.float() - their_result.float()).abs().max().item() / rms
    if not difference < LARGEST_DIFFERENCE[our_result.dtype]:
        raise SystemExit(f"{name}: the outputs differ by {difference:.1e} of their rms; nothing to compare")
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(options.rounds):
        for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
            times[side].append(_time(sides[side], options))
    ours, theirs = (statistics.median(times[side]) for side in ("ours", "theirs"))
    memory = our_peak / their_peak
    print(
        f"{name:42} {ours * 1e3:9.1f} {theirs * 1e3:9.1f} {ours / theirs:6.3f}"
        f" {our_peak / 2**20:9.1f} {their_peak / 2**20:9.1f} {memory:6.3f} {difference:9.1e}",
        flush=True,
    )
    most = CASES[name].most
    return ours <= most * theirs and our_peak <= most * their_peak


def main() -> None:
    """Run every case that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--clock",
        default="wall",
        choices=("wall", "cpu"),
        help="cpu: processor time, which other programs disturb less",
    )
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        print(
            f"{'':42} {'ours ms':>9} {'theirs':>9} {'ratio':>6}"
            f" {'ours MiB':>9} {'theirs':>9} {'ratio':>6} {'differ':>9}"
        )
        verdicts = [_compare(name, options) for name in CASES if options.only in name]
    raise SystemExit(0 if all(verdicts) else 1)


if __name__ == "__main__":
    main()
