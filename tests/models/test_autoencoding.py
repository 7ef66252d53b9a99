"""Pictures through an autoencoder that does not have the memory, or the range, to take them whole."""

import gc
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.models import autoencoding
from sigmagraph.engine.models.arch import Autoencoder, VaeShape, strips
from sigmagraph.engine.models.arch.strips import Keeping

SHAPE = VaeShape(channels=(32, 64, 64, 64), encoder_blocks=2, decoder_blocks=3)
IN_STRIPS = (Keeping.BLOCKS, Keeping.LEVELS)


@pytest.fixture
def network() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(SHAPE).requires_grad_(False).eval()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of a few rows, so that a small picture has many."""
    monkeypatch.setattr(strips, "STRIP_ELEMENTS", 1 << 14)


def furthest(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.std())


@pytest.mark.parametrize("keeping", IN_STRIPS)
@pytest.mark.parametrize(("rows", "columns"), [(24, 20), (17, 9), (2, 31)])
def test_strips_are_the_whole_picture_without_seams(
    network: Autoencoder, narrow: None, keeping: Keeping, rows: int, columns: int
) -> None:
    latent, image = torch.randn(1, 16, rows, columns), torch.rand(1, 3, 8 * rows, 8 * columns) * 2 - 1
    assert furthest(strips.decoded(network, latent, keeping), network.decode(latent)) < 1e-4
    assert furthest(strips.encoded(network, image, keeping), network.encode(image)[0]) < 1e-4


@pytest.mark.parametrize("keeping", IN_STRIPS)
def test_a_flat_edge_across_strips_stays_flat(network: Autoencoder, narrow: None, keeping: Keeping) -> None:
    """Rows beside a seam differ by no more than in the whole picture."""
    latent = torch.zeros(1, 16, 24, 16)
    whole = network.decode(latent)
    steps = (strips.decoded(network, latent, keeping).diff(dim=2) - whole.diff(dim=2)).abs().max()
    assert float(steps / whole.std()) < 1e-4


class Live(TorchDispatchMode):
    """Bytes of storages on the meta device that live at once: full size without the memory for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: Any = weakref.WeakKeyDictionary()

    def _gone(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen[storage] = True
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out


def peak_gb(call: Callable[[], object]) -> float:
    gc.collect()
    with torch.inference_mode(), Live() as live:
        call()
    return live.peak / 1e9


@pytest.fixture(scope="module")
def full_size() -> Autoencoder:
    with torch.device("meta"):
        return Autoencoder(VaeShape()).to(torch.bfloat16).requires_grad_(False)


def test_2048_decodes_in_strips_within_a_gigabyte(full_size: Autoencoder) -> None:
    """0.93 GB, and the same in a process that compiled something."""
    latent = torch.empty(1, 16, 256, 256, dtype=torch.bfloat16, device="meta")
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))
    taken = peak_gb(lambda: strips.decoded(full_size, latent, Keeping.LEVELS))
    assert autoencoding.least_bytes(strips.decoded, full_size.shape, 2048**2, torch.bfloat16) / 1e9 <= taken <= 0.95


@pytest.mark.parametrize("way", [strips.decoded, strips.encoded])
def test_estimates_are_what_is_needed_and_not_much_more(full_size: Autoencoder, way: autoencoding.Way) -> None:
    size = (1, 16, 96, 96) if way is strips.decoded else (1, 3, 768, 768)
    x = torch.empty(size, dtype=torch.bfloat16, device="meta")
    for keeping in Keeping:
        found = peak_gb(lambda keeping=keeping: way(full_size, x, keeping))  # type: ignore[misc]
        needed = autoencoding.needed_bytes(way, full_size.shape, 768**2, torch.bfloat16, keeping) / 1e9
        assert found <= needed <= 2.5 * found


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (128, 128)])
def test_no_picture_takes_less_than_what_is_refused_at_once(full_size: Autoencoder, rows: int, columns: int) -> None:
    """So a picture that could be made is never refused."""
    pixels = 64 * rows * columns
    for way, size in ((strips.decoded, (1, 16, rows, columns)), (strips.encoded, (1, 3, 8 * rows, 8 * columns))):
        x = torch.empty(size, dtype=torch.bfloat16, device="meta")
        taken = peak_gb(lambda way=way, x=x: way(full_size, x, Keeping.LEVELS))  # type: ignore[misc]
        assert 0.5 * taken <= autoencoding.least_bytes(way, full_size.shape, pixels, torch.bfloat16) / 1e9 <= taken


@pytest.mark.parametrize(("room", "halved"), [(400, False), (480, True)])
def test_what_cannot_fit_is_refused_before_anything_is_tried(
    full_size: Autoencoder, monkeypatch: pytest.MonkeyPatch, room: int, halved: bool
) -> None:
    monkeypatch.setattr(autoencoding, "available_bytes", lambda device: room * 10**6)
    with pytest.raises(
        OutOfMemory, match=r"takes 0\.91 GB in strips on meta, .* left \(nothing was tried\)"
    ) as refused:
        autoencoding.decoded(full_size, torch.empty(1, 16, 128, 128, device="meta"))
    said = re.search(r"one of (\d\.\d\d) megapixels fits", str(refused.value))
    assert said is not None
    shape, fitting = full_size.shape, float(said[1]) * 1e6
    needed = [
        autoencoding.needed_bytes(strips.decoded, shape, int(count), torch.float32, Keeping.LEVELS)
        for count in (fitting - 5_000, fitting + 25_000)
    ]
    assert needed[0] <= room * 10**6 < needed[1], "what is said to fit fits, and not much more would"
    assert ("--precision vae=bf16 this one does, in 0.46 GB" in str(refused.value)) == halved


def test_where_a_whole_picture_does_not_fit_it_is_made_in_strips(
    network: Autoencoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    latent = torch.randn(1, 16, 16, 16)
    expected = network.decode(latent)
    whole = autoencoding.needed_bytes(strips.decoded, SHAPE, 128 * 128, torch.float32, Keeping.WHOLE)
    caplog.set_level("INFO", logger=autoencoding.__name__)
    for room, said in ((whole, ""), (whole - 1, "in strips (blocks)"), (0, "in strips (levels)")):
        monkeypatch.setattr(autoencoding, "available_bytes", lambda device, room=room: room)
        monkeypatch.setattr(
            autoencoding, "NEEDS", {strips.decoded: {k: (v, 0) for k, v in zip(Keeping, (705, 194, 101), strict=True)}}
        )
        caplog.clear()
        assert furthest(autoencoding.decoded(network, latent), expected) < 1e-4
        assert said in caplog.text
        assert bool(caplog.records) == bool(said)


def test_an_allocator_that_refuses_leads_to_strips_and_then_to_a_clear_error(
    network: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refusing(network: Autoencoder, latent: Tensor, keeping: Keeping) -> Tensor:
        tried.append(keeping)
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setitem(autoencoding.NEEDS, refusing, autoencoding.NEEDS[strips.decoded])
    monkeypatch.setitem(autoencoding.LEAST, refusing, autoencoding.LEAST[strips.decoded])
    monkeypatch.setattr(strips, "decoded", refusing)
    with pytest.raises(OutOfMemory, match=r"0\.0 megapixels takes .* MB in strips on cpu, which has .* GB left"):
        autoencoding.decoded(network, torch.zeros(1, 16, 8, 8))
    assert tried == list(Keeping)


def test_other_errors_are_not_taken_for_a_lack_of_memory(network: Autoencoder) -> None:
    with pytest.raises(RuntimeError, match="channels"):
        autoencoding.decoded(network, torch.zeros(1, 15, 8, 8))


def test_what_overflows_in_16_bits_is_made_again_in_float32(network: Autoencoder) -> None:
    network.decoder.conv_in.weight.mul_(3e5)
    network.decoder.conv_in.bias.mul_(3e5)
    latent = torch.randn(1, 16, 8, 8)
    expected = network.decode(latent)
    halved = network.half()
    assert not halved.decode(latent.half()).isfinite().all()
    found = autoencoding.decoded(halved, latent.half())
    assert found.dtype == torch.float16
    assert furthest(found.float(), expected) < 2e-2


def test_a_latent_of_nan_is_not_made_twice(network: Autoencoder, caplog: pytest.LogCaptureFixture) -> None:
    autoencoding.decoded(network.bfloat16(), torch.full((1, 16, 8, 8), torch.nan, dtype=torch.bfloat16))
    assert "once more in float32" not in caplog.text


LIMITED = """
import logging, resource, torch
logging.basicConfig(level="INFO")
from sigmagraph.engine.models import autoencoding
from sigmagraph.engine.models.arch import Autoencoder, VaeShape
torch.set_num_threads(1)
torch.manual_seed(0)
network = Autoencoder(VaeShape(channels=(32, 64, 64, 64))).requires_grad_(False).eval()
latent = torch.randn(1, 16, 64, 64)
autoencoding.decoded(network, latent[..., :8, :8])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {room} * 2**20, resource.RLIM_INFINITY))
try:
    print(tuple(autoencoding.decoded(network, latent).shape))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and RLIMIT_AS are Linux's")
@pytest.mark.parametrize(("room", "said"), [(190, "(1, 3, 512, 512)"), (5, "OutOfMemory a picture of 0.3 megapixels")])
def test_under_a_limit_of_address_space_there_is_a_picture_or_a_clear_error(room: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(room=room)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.startswith(said), done.stdout + done.stderr[-2000:]
    assert re.search(r"in strips \((blocks|levels)\): memory is short", done.stderr)
