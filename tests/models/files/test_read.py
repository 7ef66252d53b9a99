"""Weight files as tables of lazily read tensors: values, dtypes, shards."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sigmagraph.engine.errors import CorruptFile, MissingFile, RefusedFile, StaleFile
from sigmagraph.engine.models.files.read import FileSlice, open_weights, under
from tests.models.conftest import Unpack

INDEX = "model.safetensors.index.json"


def test_values_are_those_of_the_safetensors_library(unpack: Unpack) -> None:
    path = unpack("mmdit_fp8_scaled.safetensors")
    weights = open_weights(path).weights
    reference = load_file(path)
    assert set(weights) == set(reference)
    for name, tensor in reference.items():
        assert weights[name].dtype == tensor.dtype
        assert torch.equal(weights[name].read().float(), tensor.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_are_read_right_at_odd_byte_positions(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "odd.safetensors"
    values = torch.tensor([0, 1, 1, 0]).to(dtype)
    save_file({"x": values, "y": values.clone()}, path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    text = raw[8 : 8 + length].rstrip() + b" "  # the data now starts wherever the header happens to end
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    for tensor in open_weights(path).weights.values():
        assert torch.equal(tensor.read(), values)


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    save_file({"scalar": torch.tensor(3.5), "none": torch.zeros(0, 4)}, tmp_path / "x.safetensors")
    weights = open_weights(tmp_path / "x.safetensors").weights
    assert weights["scalar"].read().item() == 3.5
    assert weights["none"].read().shape == (0, 4)


def test_what_is_read_cannot_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(8)}, path)
    open_weights(path).weights["a"].read().fill_(1.0)
    assert torch.equal(load_file(path)["a"], torch.zeros(8))


def test_under_strips_the_prefix(tmp_path: Path) -> None:
    save_file({"p.a": torch.zeros(1), "q.b": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert set(under(open_weights(tmp_path / "x.safetensors").weights, "p.")) == {"a"}


def sharded(folder: Path, weight_map: object) -> Path:
    save_file({"a": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors", {"one": "1"})
    save_file({"b": torch.ones(1)}, folder / "model-00002-of-00002.safetensors", {"two": "2"})
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder / INDEX


BOTH = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}


@pytest.mark.parametrize("asked", [INDEX, "model-00002-of-00002.safetensors", "."])
def test_an_index_a_shard_or_the_folder_opens_all_shards(tmp_path: Path, asked: str) -> None:
    sharded(tmp_path, BOTH)
    file = open_weights(tmp_path / asked)
    assert {name: tensor.read().item() for name, tensor in file.weights.items()} == {"a": 0.0, "b": 1.0}
    assert file.metadata == {"one": "1", "two": "2"}


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = sharded(tmp_path, {**BOTH, "c": "model-00003-of-00003.safetensors"})
    with pytest.raises(MissingFile, match="model-00003"):
        open_weights(index)


@pytest.mark.parametrize("asked", ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "."])
def test_shards_without_their_index_are_opened_together(tmp_path: Path, asked: str) -> None:
    sharded(tmp_path, BOTH).unlink()
    assert {name: tensor.read().item() for name, tensor in open_weights(tmp_path / asked).weights.items()} == {
        "a": 0.0,
        "b": 1.0,
    }
    (tmp_path / "model-00002-of-00002.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(MissingFile, match="model-00002-of-00002"):
        open_weights(tmp_path / asked)


def test_the_index_of_shards_in_another_precision_is_found(tmp_path: Path) -> None:
    places = {"a": "model.fp16-00001-of-00002.safetensors", "b": "model.fp16-00002-of-00002.safetensors"}
    for at, (name, place) in enumerate(places.items()):
        save_file({name: torch.full((1,), float(at))}, tmp_path / place)
    (tmp_path / "model.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": places}))
    blobs = tmp_path / "blobs"  # as the hub's cache keeps what it has: links
    blobs.mkdir()
    for path in [*tmp_path.glob("model*")]:
        path.rename(blobs / path.name[::-1])
        path.symlink_to(blobs / path.name[::-1])
    for place in places.values():
        assert open_weights(tmp_path / place).weights.keys() == {"a", "b"}
    (tmp_path / "model.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": {**places, "c": "x"}}))
    with pytest.raises(CorruptFile):  # it was asked
        open_weights(tmp_path / places["a"])


def test_an_index_that_lists_what_no_shard_holds_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="no shard holds, 'c' first"):
        open_weights(sharded(tmp_path, {**BOTH, "c": "model-00001-of-00002.safetensors"}))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "..", "x.bin", 7, None])
def test_an_index_reaches_only_safetensors_beside_it(tmp_path: Path, name: object) -> None:
    with pytest.raises(CorruptFile, match="is not the name of a file beside it"):
        open_weights(sharded(tmp_path, {"a": name}))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000])
def test_a_damaged_index_is_corrupt(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CorruptFile):
        open_weights(tmp_path / INDEX)


def test_a_shard_that_is_a_pickle_is_refused(tmp_path: Path) -> None:
    index = sharded(tmp_path, BOTH)
    torch.save({"b": torch.ones(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(RefusedFile):
        open_weights(index)


def test_several_models_in_a_folder_are_listed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file({"a": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(MissingFile, match=r"one\.safetensors, two\.safetensors"):
        open_weights(tmp_path)


def test_bytes_of_a_file_that_changed_are_an_error(tmp_path: Path) -> None:
    """What was read of it before belongs to other numbers; where it ends, the place is told."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1 << 12)}, path)
    place = open_weights(path).weights["a"].read
    assert isinstance(place, FileSlice)
    os.truncate(path, 1000)
    with pytest.raises(StaleFile, match="changed on disk"):
        place.read_into(0, memoryview(bytearray(4)))
    with pytest.raises(StaleFile, match="ends at byte 1000: it was cut short since it was opened"):
        place.read_into(0, memoryview(bytearray(4 << 12)))
