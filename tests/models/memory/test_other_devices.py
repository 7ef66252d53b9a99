"""Intel's and Apple's devices by a table of what they say of themselves: what is chosen, refused, and kept off them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Conditioning, load_diffusion_model
from sigmagraph.engine.models.arch import Autoencoder, MMDiT, MMDiTShape, VaeShape
from sigmagraph.engine.models.memory import device as devices
from sigmagraph.engine.models.memory import plan, resident, streamed
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.device import available_bytes, holds
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.sampling import (
    SOLVERS,
    Prediction,
    Sampling,
    exact,
    find_schedule,
    find_solver,
    noise,
    run_sigmas,
    sd3,
)
from sigmagraph.engine.sampling.noise import PhiloxNoise

FLOAT8 = torch.float8_e4m3fn
HALF, BFLOAT, FULL = torch.float16, torch.bfloat16, torch.float32


def machine(monkeypatch: pytest.MonkeyPatch, xpu: int = 0, mps: bool = False, *, has_bf16: bool = True) -> None:
    """A machine with so many of Intel's devices, and with Apple's."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: xpu)
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: has_bf16 or major < 14)


@pytest.mark.parametrize(
    ("chosen", "xpu", "mps", "expected"),
    [
        ("auto", 0, True, "mps"),
        ("auto", 1, True, "xpu:0"),
        ("xpu", 2, False, "xpu:0"),
        ("xpu:1", 2, False, "xpu:1"),
        ("mps", 1, True, "mps"),
        ("cpu", 1, True, "cpu"),
    ],
)
def test_the_device_is_the_one_named_or_the_best(
    monkeypatch: pytest.MonkeyPatch, chosen: str, xpu: int, mps: bool, expected: str
) -> None:
    machine(monkeypatch, xpu, mps)
    assert str(MemoryChoices.parse(device=chosen).on) == expected


@pytest.mark.parametrize(("chosen", "there"), [("cuda", "xpu:0, mps, cpu"), ("xpu:1", "xpu:0, mps, cpu")])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, chosen: str, there: str
) -> None:
    machine(monkeypatch, 1, True)
    with pytest.raises(BadValue, match=f"one of {there}"):
        MemoryChoices.parse(device=chosen)


@pytest.mark.parametrize("name", ["mps", "xpu"])
@pytest.mark.parametrize(
    ("stored", "has_bf16", "expected"),
    [
        (HALF, True, HALF),
        (BFLOAT, True, BFLOAT),
        (BFLOAT, False, HALF),
        (FLOAT8, True, BFLOAT),
        (FLOAT8, False, HALF),
        (FULL, True, FULL),
    ],
)
def test_the_precision_is_one_that_the_device_multiplies(
    monkeypatch: pytest.MonkeyPatch, name: str, stored: torch.dtype, has_bf16: bool, expected: torch.dtype
) -> None:
    machine(monkeypatch, 1, True, has_bf16=has_bf16)
    choices = MemoryChoices.parse(device=name)
    assert choices.placement("model", stored).dtype == choices.placement("vae", stored).dtype == expected
    assert choices.placement("text", stored).dtype == FULL


def test_float8_is_refused_where_no_tensor_of_it_can_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 1, True)
    with pytest.raises(BadValue, match="bf16 or fp16 on mps, which has no float8"):
        MemoryChoices.parse("fp8", device="mps")
    assert MemoryChoices.parse("fp8", device="xpu").model == "fp8"
    apple, intel = torch.device("mps"), torch.device("xpu", 0)
    assert [holds(apple, dtype) for dtype in (FLOAT8, torch.float64, HALF, torch.uint8)] == [False, False, True, True]
    assert [holds(intel, dtype) for dtype in (FLOAT8, torch.float64)] == [True, False]


def test_the_room_is_what_the_device_says(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 1, True)
    monkeypatch.setattr(torch.xpu, "mem_get_info", lambda device: (5 * 10**9, 16 * 10**9))
    monkeypatch.setattr(torch.xpu, "memory_reserved", lambda device: 3 * 10**9)
    monkeypatch.setattr(torch.xpu, "memory_allocated", lambda device: 2 * 10**9)
    assert available_bytes(torch.device("xpu", 0)) == 6 * 10**9
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 11 * 10**9)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 4 * 10**9)
    for free, expected in ((20 * 10**9, 7 * 10**9), (3 * 10**9, 3 * 10**9)):
        monkeypatch.setattr(devices, "free_bytes", lambda free=free: free)
        assert available_bytes(torch.device("mps")) == expected


def test_noise_by_counter_is_made_where_float64_is_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """meta stands for a device without float64."""
    expected = PhiloxNoise(7).initial(torch.zeros(2, 4, 6, 6))
    monkeypatch.setattr(exact, "HAVE_FLOAT64", frozenset(("cpu",)))
    sent: list[tuple[Tensor, str]] = []
    monkeypatch.setattr(noise, "_sent", lambda made, device: sent.append((made, device.type)))
    PhiloxNoise(7).initial(torch.zeros(2, 4, 6, 6, device="meta"))
    [(made, where)] = sent
    assert where == "meta"
    assert torch.equal(made, expected)


class NoDoubles(TorchDispatchMode):
    """A device (meta stands for it) that has no float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                assert tensor.dtype != torch.float64, func
        return out


def test_a_forward_and_a_decode_need_no_float64() -> None:
    with torch.device("meta"):
        network = MMDiT(MMDiTShape(2, 128, 64, 96, 12)).to(HALF)
        x, context = torch.empty(2, 16, 8, 8, dtype=HALF), torch.empty(2, 5, 96, dtype=HALF)
        pooled, timestep = torch.empty(2, 64, dtype=HALF), torch.empty(2)
        vae = Autoencoder(VaeShape()).to(HALF)
        latent = torch.empty(1, 16, 8, 8, dtype=HALF)
    with torch.inference_mode(), NoDoubles():
        assert network(x, timestep, pooled, context).shape == x.shape
        assert vae.decode(latent).shape == (1, 3, 64, 64)


class ReadBack(NoDoubles):
    """The same device, and half of everything is what the CPU reads of it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        source, given = args[0] if args else None, (*args[1:], *(kwargs or {}).values())
        if isinstance(source, Tensor) and source.is_meta:
            name = func._schema.name
            if name in ("aten::_local_scalar_dense", "aten::item"):
                return True if source.dtype == torch.bool else 0.5
            if name in ("aten::_to_copy", "aten::to") and torch.device("cpu") in given:
                dtype = next((one for one in given if isinstance(one, torch.dtype)), source.dtype)
                return torch.full(source.shape, 0.5, dtype=dtype)
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_no_sampler_needs_float64_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "HAVE_FLOAT64", frozenset(("cpu",)))
    sigmas = run_sigmas(find_schedule("normal"), sd3().levels, 5, 1.0, False)
    latent = torch.zeros(1, 16, 4, 4, device="meta")

    def halved(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return Prediction(x * 0.5, x * 0.4)

    for name in SOLVERS:
        with ReadBack():
            made = Sampling(halved, latent, sigmas, sd3(), find_solver(name), noise=PhiloxNoise(3)).run()
        assert (made.device.type, made.dtype) == ("meta", FULL), name


@pytest.mark.parametrize("memory", ["auto", "stream"])
@pytest.mark.parametrize("stored", [FLOAT8, HALF], ids=["a float8 file", "weight_dtype float8"])
def test_float8_grows_before_it_goes_where_it_cannot_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str, stored: torch.dtype
) -> None:
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    monkeypatch.setattr(streamed, "STREAMED_FROM_BYTES", 4096)
    torch.manual_seed(0)
    shapes = MMDiT(MMDiTShape(2, 128, 64, 96, 12)).state_dict()
    drawn = {name: torch.randn(tensor.shape) for name, tensor in shapes.items()}
    tensors = {name: (tensor * 0.05).to(stored if tensor.ndim == 2 else HALF) for name, tensor in drawn.items()}
    save_file(tensors, tmp_path / "a.safetensors")

    def predicted() -> tuple[Tensor, list[str]]:
        RESIDENCY.free()
        RESIDENCY.choices = MemoryChoices.parse("fp32", memory)
        model = load_diffusion_model(tmp_path / "a.safetensors", kept_as=FLOAT8)
        entry = Conditioning(torch.ones(1, 5, 96), torch.ones(1, 64))
        return model.predict(torch.ones(1, 16, 8, 8), 0.5, [entry])[0], [mode for _, mode in RESIDENCY.held()]

    expected, kept = predicted()
    moved: list[torch.dtype] = []
    on: Callable[..., Tensor] = resident.StoredTensor.on
    monkeypatch.setattr(resident.StoredTensor, "on", lambda self, device: moved.append(self.dtype) or on(self, device))
    monkeypatch.setattr(resident, "holds", lambda device, dtype: dtype != FLOAT8)
    found, grown = predicted()
    assert torch.equal(found, expected)
    whole = ["resident"] if memory == "auto" else ["streamed"]
    assert (kept, grown) == (["packed"] if memory == "auto" and stored == HALF else whole, whole)
    assert FLOAT8 not in moved
