"""The header reader on damaged, lying and foreign files: always one `EngineError`, never a surprise."""

import io
import json
import pickle
import runpy
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from sigmagraph.engine.errors import CorruptFile, EngineError, MissingFile, RefusedFile
from sigmagraph.engine.models.files import header
from sigmagraph.engine.models.files.header import LARGEST_HEADER_BYTES, read_header
from sigmagraph.engine.models.files.read import open_weights

SOUND = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}, {"who": "me"})
in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_sound_file_gives_its_tensors_and_metadata(tmp_path: Path) -> None:
    header = read_header(written(tmp_path, SOUND))
    assert {name: (e.dtype, e.shape) for name, e in header.entries.items()} == {
        "a": (torch.float32, (2, 3)),
        "b": (torch.float16, (4,)),
    }
    assert header.metadata == {"who": "me"}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(shape=[2])}, b"1234", "4 bytes for F32 \\[2\\], which takes 8"),
        ({"a": entry(offsets=[0, 8], shape=[2])}, b"1234", "lie outside the file"),
        ({"a": entry(), "b": entry()}, b"1234", "overlaps"),
        ({"a": entry(), "b": entry(offsets=[8, 12])}, b"1234" * 3, "leaves a gap"),
        ({"a": entry()}, b"12345678", "4 bytes after the last tensor"),
        ({"a": entry(dtype="F13")}, b"1234", "dtype 'F13' is not one of"),
        ({"a": entry(shape=[-1])}, b"1234", "not sizes"),
        ({"a": entry(shape=[True])}, b"1234", "not sizes"),
        ({"a": entry(shape=[2**60, 2**60])}, b"1234", "not sizes"),
        ({"a": entry(offsets=[4, 0])}, b"1234", "lie outside"),
        ({"a": entry(offsets=[0])}, b"1234", "not sizes"),
        ({"a": {"dtype": "F32"}}, b"", "not \\(dtype, shape, data_offsets\\)"),
        ({"a": 3}, b"", "not \\(dtype, shape, data_offsets\\)"),
        ({"__metadata__": {"n": 1}}, b"", "not a table of strings"),
        (b'{"a": ', b"", "not valid JSON"),
        (b'{"a":{},"a":{}}', b"", "a name occurs twice"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "not valid JSON"),
        (b'{"a":"\xff"}', b"", "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "not valid JSON"),
    ],
)
def test_a_lying_header_is_corrupt_and_says_why(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    with pytest.raises(CorruptFile, match=message):
        read_header(written(tmp_path, with_header(header, data)))


@pytest.mark.parametrize("shape", [[2**48, 2**48, 0], [0, 2**48, 2**48]])
def test_nothing_in_a_shape_that_cannot_be_addressed_is_corrupt(tmp_path: Path, shape: list[int]) -> None:
    with pytest.raises(CorruptFile, match="nothing that can be addressed"):
        read_header(written(tmp_path, with_header({"a": entry(shape=shape, offsets=[0, 0])})))


def test_the_oldest_torch_that_is_supported_reads_scales_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "float8_e8m0fnu")
    assert runpy.run_path(header.__file__)["DTYPES"]["F8_E8M0"] == torch.uint8


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    for length in range(len(SOUND)):
        with pytest.raises(CorruptFile):
            read_header(written(tmp_path, SOUND[:length]))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (zipped(), "a zip archive"),
        (pickle.dumps({"a": 1}, protocol=0), "a Python pickle"),
        (pickle.dumps({"a": 1}, protocol=1), "a Python pickle"),
        (pickle.dumps({"a": 1}, protocol=2), "a Python pickle"),
        (pickle.dumps({"a": 1}, protocol=5), "a Python pickle"),
        (pickle.dumps(Path, protocol=0), "a Python pickle"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 64, "an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "a tar archive"),
        (b'{"weight_map": {}}', "JSON text"),
    ],
)
def test_other_kinds_of_files_are_refused_by_content_whatever_their_name(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    with pytest.raises(RefusedFile, match=f"this is {kind}"):
        read_header(written(tmp_path, content))


def test_a_torch_save_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.ones(3)}, path)
    with pytest.raises(RefusedFile, match="zip archive"):
        open_weights(path)


def test_a_header_whose_length_looks_like_a_pickle_is_still_read(tmp_path: Path) -> None:
    text = b'{"__metadata__":{}}'.ljust(0x280)  # 80 02 is also how a pickle of protocol 2 begins
    assert read_header(written(tmp_path, with_header(text))).entries == {}


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no such file"):
        read_header(tmp_path / "nothing.safetensors")
    with pytest.raises(MissingFile, match="a folder without a safetensors file"):
        open_weights(tmp_path)


def test_a_huge_announced_header_is_not_allocated(tmp_path: Path) -> None:
    path = written(tmp_path, LARGEST_HEADER_BYTES.to_bytes(8, "little") + b"{" + b" " * 100)
    tracemalloc.start()
    with pytest.raises(CorruptFile, match="truncated"):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@in_tmp_path
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_give_an_engine_error_or_a_readable_file(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(SOUND)
    for position, value in flips:
        content[position] = value
    read_all_or_fail_cleanly(written(tmp_path, bytes(content)))


@in_tmp_path
@given(st.binary(max_size=400))
def test_arbitrary_bytes_give_an_engine_error_or_a_readable_file(tmp_path: Path, content: bytes) -> None:
    read_all_or_fail_cleanly(written(tmp_path, content))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "?"]) | json_values,
        "shape": st.lists(st.integers(-2, 5), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-2, 40), min_size=2, max_size=2) | json_values,
    }
)


@in_tmp_path
@given(st.dictionaries(st.text(max_size=4), entries | json_values, max_size=4) | json_values, st.binary(max_size=40))
def test_arbitrary_json_headers_give_an_engine_error_or_a_readable_file(
    tmp_path: Path, header: Any, data: bytes
) -> None:
    read_all_or_fail_cleanly(written(tmp_path, with_header(header, data)))


def read_all_or_fail_cleanly(path: Path) -> None:
    try:
        file = open_weights(path)
    except EngineError:
        return
    for tensor in file.weights.values():
        assert tensor.read().shape == tensor.shape
