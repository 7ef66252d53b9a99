"""GGUF files: every format equal to the `gguf` package's, whole networks equal to their dense twins, headers fuzzed."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from sigmagraph.engine.errors import CorruptFile, EngineError, RefusedFile, UnknownModel
from sigmagraph.engine.models import Conditioning, load_diffusion_model, load_text_encoders
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.files.detect import find_parts
from sigmagraph.engine.models.files.ggml import CHUNK, DENSE, FORMATS, UNREAD, grown
from sigmagraph.engine.models.files.gguf import t5_name
from sigmagraph.engine.models.files.read import is_quantised, open_weights
from sigmagraph.engine.models.memory import streamed
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.plan import Budget, Part, place
from sigmagraph.engine.models.memory.residency import RESIDENCY
from tests.weights import drawn_weights

SHAPE = MMDiTShape(2, 256, 64, 96, 8, has_qk_norm=True, dual_attention_blocks=frozenset({0}))
LLAMA = {
    "shared": "token_embd",
    "encoder.final_layer_norm": "enc.output_norm",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    **{f"layer.0.SelfAttention.{letter}": f"attn_{letter}" for letter in "qkvo"},
    "layer.0.layer_norm": "attn_norm",
    "layer.1.layer_norm": "ffn_norm",
    "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wo": "ffn_down",
}


def blocks_of(kind: Kind, count: int, seed: int = 0) -> np.ndarray:
    """Random blocks whose scales are ordinary numbers."""
    random = np.random.default_rng(seed)
    raw = random.integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for at in HALVES.get(kind.name, (0,)):
        raw[:, at : at + 2] = (random.standard_normal((count, 1)) * 0.01).astype(np.float16).view(np.uint8)
    return raw


HALVES = {
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}


@pytest.mark.parametrize("number", FORMATS)
def test_every_format_grows_to_what_the_gguf_package_makes_of_it(number: int) -> None:
    kind = Kind(number)
    assert (FORMATS[number].name, FORMATS[number].size, FORMATS[number].bytes_) == (
        kind.name,
        *gguf.GGML_QUANT_SIZES[kind],
    )
    blocks = blocks_of(kind, CHUNK // FORMATS[number].size * 2 + 3)
    grew = grown(FORMATS[number], torch.from_numpy(blocks))
    assert np.array_equal(grew.numpy(), gguf.quants.dequantize(blocks, kind))


def test_every_format_of_the_package_is_read_or_known_by_name() -> None:
    assert {kind.value for kind in Kind} == {*FORMATS, *DENSE, *UNREAD}
    assert all(Kind(number).name == name for number, name in UNREAD.items())


def written(
    path: Path, tensors: Mapping[str, Tensor], kind: Kind, architecture: str = "sd3"
) -> tuple[Path, dict[str, Tensor]]:
    """A file in which every matrix of whole blocks is quantised, and what its tensors are when they have grown."""
    writer, dense = gguf.GGUFWriter(path, architecture), {}
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        size, _width = gguf.GGML_QUANT_SIZES[kind]
        if values.ndim == 2 and values.shape[1] % size == 0:
            raw = blocks_of(kind, values.size // size, seed=len(dense)).reshape(len(values), -1)
            writer.add_tensor(name, raw, raw_dtype=kind)
            dense[name] = torch.from_numpy(gguf.quants.dequantize(raw, kind))
        else:
            writer.add_tensor(name, values)
            dense[name] = torch.from_numpy(values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path, dense


@pytest.fixture
def transformer() -> dict[str, Tensor]:
    return drawn_weights(SHAPE)


def predicted(path: Path, memory: str) -> Tensor:
    RESIDENCY.free()
    before, RESIDENCY.choices = RESIDENCY.choices, MemoryChoices.parse("fp32", memory)
    try:
        x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
        conditioning = Conditioning(torch.ones(1, 5, 96) * 0.1, torch.ones(1, 64) * 0.1)
        return load_diffusion_model(path).predict(x, 0.7, [conditioning])[0]
    finally:
        RESIDENCY.choices = before


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.Q4_K, Kind.Q6_K], ids=lambda kind: kind.name)
@pytest.mark.parametrize("memory", ["resident", "stream"])
def test_a_quantised_transformer_predicts_what_its_dense_twin_does(
    tmp_path: Path, transformer: dict[str, Tensor], kind: Kind, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "STREAMED_FROM_BYTES", 4096)
    named = {f"model.diffusion_model.{name}": tensor for name, tensor in transformer.items()}
    path, dense = written(tmp_path / "model.gguf", named, kind)
    assert sum(map(is_quantised, open_weights(path).weights.values())) > 20
    save_file(dense, tmp_path / "dense.safetensors")
    assert torch.equal(predicted(path, memory), predicted(tmp_path / "dense.safetensors", "resident"))


@pytest.fixture
def t5() -> dict[str, Tensor]:
    torch.manual_seed(1)
    sizes = {"vocab_size": 64, "d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 2, "num_heads": 4}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False)
    tensors = {name: tensor.detach() for name, tensor in T5EncoderModel(config).state_dict().items()}
    return {name: tensor for name, tensor in tensors.items() if name != "encoder.embed_tokens.weight"}


def of_llama(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if module in LLAMA:
        return f"{LLAMA[module]}.{leaf}"
    _, _, block, inner = module.split(".", 3)
    return f"enc.blk.{block}.{LLAMA[inner]}.{leaf}"


@pytest.mark.parametrize("memory", ["resident", "stream"])
def test_a_quantised_t5_in_llama_cpps_names_encodes_what_its_dense_twin_does(
    tmp_path: Path, t5: dict[str, Tensor], memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "STREAMED_FROM_BYTES", 4096)
    path, dense = written(
        tmp_path / "t5.gguf", {of_llama(name): tensor for name, tensor in t5.items()}, Kind.Q5_K, "t5encoder"
    )
    save_file({t5_name(name): tensor for name, tensor in dense.items()}, tmp_path / "dense.safetensors")
    ids, states = torch.tensor([[5, 9, 2, 1, 0, 0], [7, 7, 63, 1, 0, 0]]), []
    for file, kept in ((path, memory), (tmp_path / "dense.safetensors", "resident")):
        RESIDENCY.free()
        before, RESIDENCY.choices = RESIDENCY.choices, MemoryChoices.parse("fp32", kept)
        states.append(load_text_encoders([file]).encoders["t5xxl"].encode(ids).hidden)
        RESIDENCY.choices = before
    assert torch.equal(states[0], states[1])


def test_the_decoder_of_a_whole_t5_is_left_out(tmp_path: Path, t5: dict[str, Tensor]) -> None:
    named = {of_llama(name): tensor for name, tensor in t5.items()}
    path, _ = written(tmp_path / "t5.gguf", {**named, "dec.blk.0.attn_q.weight": torch.ones(4, 4)}, Kind.Q8_0, "t5")
    assert set(find_parts(open_weights(path)).encoders) == {"t5xxl"}
    assert not any(name.startswith("dec.") for name in open_weights(path).weights)


def test_folded_tensors_get_their_shape_back(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "sd3")
    raw = blocks_of(Kind.Q4_K, 6)
    writer.add_tensor("a", raw.reshape(3, -1), raw_dtype=Kind.Q4_K)
    writer.add_array("comfy.gguf.orig_shape.a", [2, 3, 256])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    stored = open_weights(tmp_path / "x.gguf").weights["a"]
    assert stored.shape == (2, 3, 256)
    assert np.array_equal(stored.read().numpy().reshape(6, 256), gguf.quants.dequantize(raw, Kind.Q4_K))


def test_an_unread_format_and_another_architecture_are_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "sd3")
    writer.add_tensor("a", blocks_of(Kind.IQ2_S, 2), raw_dtype=Kind.IQ2_S)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(RefusedFile, match=r"'a' is stored as IQ2_S; what is read: F32, F16, BF16, Q4_0"):
        open_weights(tmp_path / "x.gguf")
    path, _ = written(tmp_path / "y.gguf", {"double_blocks.9.weight": torch.ones(2, 2)}, Kind.Q8_0, "flux")
    with pytest.raises(UnknownModel, match="GGUF file of the architecture 'flux'"):
        find_parts(open_weights(path))


def test_a_part_of_a_split_file_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "sd3", split_max_tensors=1)
    for name in ("a", "b"):
        writer.add_tensor(name, np.ones((2, 2), dtype=np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(RefusedFile, match=r"is one of 2 parts of a GGUF file; join them"):
        open_weights(tmp_path / "x-00001-of-00002.gguf")


def test_a_header_of_more_tensors_than_any_file_has_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("header", "gguf"):
        monkeypatch.setattr(f"sigmagraph.engine.models.files.{module}.MOST_TENSORS", 2)
    three = {name: torch.ones(2, 2) for name in ("a", "b", "c")}
    save_file(three, tmp_path / "x.safetensors")
    for path in (tmp_path / "x.safetensors", written(tmp_path / "x.gguf", three, Kind.Q8_0)[0]):
        with pytest.raises(CorruptFile, match="names 3 tensors; at most 2 are read"):
            open_weights(path)


def sound(folder: Path) -> bytes:
    tensors = {"a": torch.ones(4, 64), "b.weight": torch.ones(3), "c": torch.ones(2, 256)}
    return written(folder / "sound.gguf", tensors, Kind.Q8_0)[0].read_bytes()


in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)


@in_tmp_path
@given(data=st.data())
def test_a_damaged_file_is_an_error_of_ours_or_a_table_inside_the_file(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(sound(tmp_path))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, len(content) - 9))
        width = data.draw(st.sampled_from([1, 4, 8]))
        value = data.draw(st.sampled_from([0, 1, 2**7, 2**31, 2**width - 1, 2 ** (8 * width) - 1]))
        content[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    cut = data.draw(st.integers(4, len(content)))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content[:cut])
    tracemalloc.start()
    try:
        weights = open_weights(path).weights
        assert sum(stored.stored_bytes for stored in weights.values()) <= cut
        for stored in weights.values():
            stored.read()
    except EngineError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("cut", range(4, 400, 13))
def test_a_truncated_file_is_said_to_be_one(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(sound(tmp_path)[:cut])
    with pytest.raises(CorruptFile, match="truncated"):
        open_weights(path)


def test_quantised_weights_stay_small_on_every_device_unless_asked_otherwise() -> None:
    sizes = {"largest_bytes": 4 * 10**8, "packed_bytes": 5 * 10**9}
    part = Part("model", "model", "float32", 32 * 10**9, 5 * 10**9, **sizes, is_quantised=True)
    assert place(part, Budget("cpu", 64 * 10**9)).mode == "streamed"
    assert place(part, Budget("cuda", 64 * 10**9, is_host=False)).mode == "packed"
    assert place(part, Budget("cuda", 5 * 10**9, is_host=False)).mode == "streamed"
    assert place(part, Budget("cpu", 64 * 10**9, memory="resident")).mode == "resident"
