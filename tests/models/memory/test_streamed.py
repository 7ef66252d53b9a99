"""Streamed networks give the numbers of resident ones, bit for bit, and take a fraction of their memory."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5Config, T5EncoderModel

from sigmagraph.engine.models import Adapter, Conditioning, load_diffusion_model, load_text_encoders
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.memory import streamed as module
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY, ready
from sigmagraph.engine.models.memory.resident import hollow
from sigmagraph.engine.models.text.embeddings import Vector
from sigmagraph.engine.models.text.encode import weighted
from tests.weights import drawn_weights

SHAPE = MMDiTShape(8, 128, 64, 96, 24, has_qk_norm=True, dual_attention_blocks=frozenset({0}))
IDS = torch.tensor([[5, 9, 2, 1, 0, 0], [7, 7, 3, 1, 0, 0]])


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors of a test are small; those above 4 KiB are streamed."""
    monkeypatch.setattr(module, "STREAMED_FROM_BYTES", 4096)
    before = RESIDENCY.choices
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


def choose(memory: str, precision: str = "fp32") -> None:
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices.parse(precision, memory)


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def transformer(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    save_file(
        {name: tensor.to(request.param) for name, tensor in drawn_weights(SHAPE).items()},
        tmp_path / "model.safetensors",
    )
    return tmp_path / "model.safetensors"


@pytest.fixture(params=[torch.float16, torch.float8_e4m3fn], ids=str)
def t5(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    torch.manual_seed(1)
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 2}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False)
    tensors = {name: tensor.to(request.param).clone() for name, tensor in T5EncoderModel(config).state_dict().items()}
    save_file(tensors, tmp_path / "t5.safetensors")
    return tmp_path / "t5.safetensors"


def predicted(path: Path) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 16, 10, 6, generator=generator)
    entry = Conditioning(torch.randn(1, 7, 96, generator=generator), torch.randn(1, 64, generator=generator))
    return load_diffusion_model(path).predict(x, 0.6, [entry, entry.zeroed()])[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_streamed_transformer_predicts_what_a_resident_one_does(transformer: Path, precision: str) -> None:
    choose("resident", precision)
    resident = predicted(transformer)
    choose("stream", precision)
    assert torch.equal(predicted(transformer), resident)
    assert [mode for _, mode in RESIDENCY.held()] == []  # the model is gone, and its network with it


@pytest.mark.parametrize("skipped", [(), (1, 2), (7,)])
def test_blocks_on_a_belt_predict_what_resident_ones_do(
    transformer: Path, monkeypatch: pytest.MonkeyPatch, skipped: tuple[int, ...]
) -> None:
    """The way of an accelerator, with the CPU for one: two buffers, the next block on its way, twice over."""
    choose("resident")
    x, entry = torch.ones(2, 16, 8, 8), Conditioning(torch.ones(1, 7, 96), torch.ones(1, 64))
    model = load_diffusion_model(transformer).with_skipped_layers(skipped)
    resident = model.predict(x, 0.4, [entry])[0]
    weights, placement = model.recipe.weights, model.placement
    with torch.inference_mode():  # as in a worker; the thread that fills the buffers is not in it
        belted = module.streamed(hollow(model.recipe.build), weights, placement, blocks="joint_blocks.")
    twin = replace(model, recipe=ready(belted, placement))
    with torch.inference_mode():
        for _ in range(3):
            assert torch.equal(twin.predict(x, 0.4, [entry])[0], resident)
    block = belted.joint_blocks[3].x_block.mlp.fc1.weight
    assert (block.is_meta, belted.context_embedder.weight.is_meta) == (True, False)


def test_a_streamed_t5_encodes_what_a_resident_one_does(t5: Path) -> None:
    choose("resident")
    resident = load_text_encoders([t5]).encoders["t5xxl"].encode(IDS).hidden
    choose("stream")
    encoder = load_text_encoders([t5]).encoders["t5xxl"]
    assert torch.equal(encoder.encode(IDS).hidden, resident)
    assert torch.equal(encoder.encode(IDS).hidden, resident), "the second run is the first"
    assert [mode for _, mode in RESIDENCY.held()] == ["streamed"]
    assert RESIDENCY.bytes_on(torch.device("cpu")) < t5.stat().st_size / 2, "what is not there is not counted"


def test_learned_vectors_stand_beside_a_streamed_table(t5: Path) -> None:
    chunk = tuple((Vector(torch.full((32,), 0.1)) if at == 1 else at, 1.2) for at in range(6))
    choose("resident")
    resident = weighted(load_text_encoders([t5]).encoders["t5xxl"], (chunk,))
    choose("stream")
    assert torch.equal(weighted(load_text_encoders([t5]).encoders["t5xxl"], (chunk,)).hidden, resident.hidden)


def test_an_adapter_is_merged_into_a_streamed_network_as_into_a_resident_one(transformer: Path) -> None:
    base = "diffusion_model.joint_blocks.1.x_block.mlp.fc1"
    torch.manual_seed(3)
    adapter = Adapter(Path("a.safetensors"), {base: {"up": torch.randn(512, 4), "down": torch.randn(4, 128)}})
    found = []
    for memory in ("resident", "stream"):
        choose(memory)
        model = load_diffusion_model(transformer).with_adapter(adapter, 0.7)
        entry = Conditioning(torch.ones(1, 7, 96), torch.ones(1, 64))
        found += [model.predict(torch.ones(1, 16, 8, 8), 0.5, [entry])[0]]
    assert torch.equal(*found)


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive, and their peak; a mapped file is none."""

    def __init__(self, mapped_bytes: int) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._mapped_bytes, self._seen = mapped_bytes, weakref.WeakKeyDictionary[Any, bool]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                self._saw(tensor.untyped_storage())
        return result

    def _saw(self, storage: Any) -> None:
        size = storage.nbytes()
        if storage not in self._seen and size != self._mapped_bytes:
            self._seen[storage] = True
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


def test_a_streamed_network_takes_at_most_a_third(transformer: Path) -> None:
    peaks = {}
    for memory in ("resident", "stream"):
        choose(memory)
        with Live(transformer.stat().st_size) as live:
            predicted(transformer)
        peaks[memory] = live.peak
    assert peaks["stream"] <= peaks["resident"] / 3, peaks
