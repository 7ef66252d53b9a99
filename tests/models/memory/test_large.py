"""SD3.5 Large at full size without its memory: bytes alive while it is made, changed and asked, on the meta device."""

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.arch.mmdit import TextAt
from sigmagraph.engine.models.files.adapter_keys import mmdit_keys
from sigmagraph.engine.models.files.fp8 import multiplied_out
from sigmagraph.engine.models.files.lora import Adapter, Patch
from sigmagraph.engine.models.files.read import StoredTensor, Weights
from sigmagraph.engine.models.memory import residency, streamed
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.modulation_tables import MODULATION, expect
from sigmagraph.engine.models.memory.plan import Budget, Part, plan
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.memory.residency import RESIDENCY

META = torch.device("meta")
GB = 10**9
LARGE = MMDiTShape(38, 2432, 2048, 4096, 192)
T5 = Part("t5xxl", "text", "float32", 19_050 * 10**6, 9_520 * 10**6, 0, 168 * 10**6, 2 * 10**6)
DENSE = 16_292_561_536  # bytes of the published bf16 weights


class Live(TorchDispatchMode):
    """Bytes of all storages alive on the meta device, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == "meta":
                storage = tensor.untyped_storage()
                if storage not in self._seen:
                    self._seen[storage] = True
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, storage.nbytes())
        return result

    def _gone(self, size: int) -> None:
        self.now -= size


def stored(shape: tuple[int, ...], dtype: torch.dtype) -> StoredTensor:
    return StoredTensor(shape, dtype, lambda: torch.empty(shape, dtype=dtype, device=META))


def weights(*, is_fp8: bool) -> Weights:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in MMDiT(LARGE).state_dict().items()}
    found: dict[str, StoredTensor] = {}
    for name, shape in shapes.items():
        is_matrix = is_fp8 and name.startswith("joint_blocks") and len(shape) == 2
        found[name] = stored(shape, torch.float8_e4m3fn if is_matrix else torch.bfloat16)
        if is_matrix:
            found[name.removesuffix("weight") + "scale_weight"] = stored((), torch.float32)
    return multiplied_out(found)


def adapter(names: Weights) -> Patch:
    """Rank 16 on every matrix of every block."""
    groups = {
        f"diffusion_model.{name.removesuffix('.weight')}": {
            "up": torch.empty(tensor.shape[0], 16, device=META),
            "down": torch.empty(16, tensor.shape[1], device=META),
        }
        for name, tensor in names.items()
        if name.startswith("joint_blocks") and name.endswith(".weight") and len(tensor.shape) == 2
    }
    made = Adapter(Path("rank16.safetensors"), groups)
    return Patch(made, made.fitting(mmdit_keys(names, LARGE.depth)), 0.8)


def asked(network: MMDiT) -> None:
    """A guided forward at 1024 x 1024 with T5's tokens, the first of 25 that were announced."""
    at = {"device": META, "dtype": torch.bfloat16}
    assert network.tables is not None
    expect(float(1000 - 40 * step) for step in range(25))
    sides = [TextAt(1000.0, torch.empty(1, 2048, **at), torch.empty(1, 154, 4096, **at), 1) for _ in range(2)]
    network(
        torch.empty(2, 16, 128, 128, **at),
        torch.empty(2, device=META),
        torch.empty(2, 2048, **at),
        torch.empty(2, 154, 4096, **at),
        beforehand=network.tables.told(network, sides),
    )


def unseen(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same, its results not counted: what has no memory on any device is on the meta device always."""

    def made(*given: Any) -> Any:
        with _disable_current_modes():
            return make(*given)

    return made


@pytest.fixture(autouse=True)
def own_choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(residency, "hollow", unseen(residency.hollow))
    monkeypatch.setattr(residency, "absent", unseen(residency.absent))
    monkeypatch.setattr(streamed._Feeder, "absent", unseen(streamed._Feeder.absent))
    before = RESIDENCY.choices
    RESIDENCY.free()
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


def peak_of(recipe: Recipe[MMDiT]) -> int:
    with torch.inference_mode(), Live() as live, recipe.use() as network:
        asked(network)
    gc.collect()
    return live.peak


def recipe(names: Weights) -> Recipe[MMDiT]:
    return Recipe.checked(
        "large",
        "model",
        lambda: MMDiT(LARGE),
        names,
        Placement(META, torch.bfloat16),
        RESIDENCY,
        "joint_blocks.",
        MODULATION,
    )


def test_large_takes_its_weights_a_table_and_half_a_gigabyte() -> None:
    assert DENSE <= peak_of(recipe(weights(is_fp8=False))) <= DENSE + 0.65 * GB


def test_on_a_card_of_16_gb_what_computes_before_a_run_leaves() -> None:
    RESIDENCY.choices = MemoryChoices(limit_bytes=16 * GB)
    large = recipe(weights(is_fp8=False))
    found = plan([large.part(), T5], Budget("cuda:0", 16 * GB, is_host=False))
    assert [(placed.mode, placed.leaves) for placed in found.placed] == [("resident", True), ("streamed", False)]
    assert peak_of(large) <= 12 * GB
    assert found.peak_bytes <= 12 * GB


def test_float8_weights_stay_small_on_cards_of_16_and_of_9_gb() -> None:
    for limit, bound in ((16, 9.2), (9, 7.2)):
        RESIDENCY.choices = MemoryChoices(limit_bytes=limit * GB)
        assert peak_of(recipe(weights(is_fp8=True))) <= bound * GB
        RESIDENCY.free()


def test_an_adapter_on_everything_adds_less_than_a_gigabyte() -> None:
    names = weights(is_fp8=False)
    plain = recipe(names)
    base = peak_of(plain)
    RESIDENCY.free()
    patched = plain.with_patches([adapter(names)])
    assert peak_of(patched) <= base + 1 * GB
