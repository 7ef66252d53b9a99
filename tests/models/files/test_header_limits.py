"""Headers that announce more than their file has, opened where hardly any memory is left: an error each time."""

import json
import struct
import subprocess
import sys
from pathlib import Path

SPARE_BYTES = 48 * 2**20  # beyond what the process has once it is ready

OPENING = """
import resource, sys
from pathlib import Path
from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.models.files.read import open_weights

folder = Path(sys.argv[1])
open_weights(folder / "sound.safetensors"), open_weights(folder / "sound.gguf")
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[2]),) * 2)
for path in sorted(folder.glob("lie*")):
    try:
        weights = open_weights(path).weights
        print(path.name, "opened", sum(stored.stored_bytes for stored in weights.values()))
    except EngineError as error:
        print(path.name, type(error).__name__)
try:
    bytes(4 * int(sys.argv[2]))
    print("no limit")
except MemoryError:
    print("limited")
"""


def safetensors(header: object, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


def gguf(tensors: int, pairs: int, rest: bytes = b"") -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, tensors, pairs) + rest


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def tensor(name: bytes, sides: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, kind, offset)


def entry(shape: list[int], stop: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, stop]}


LIES: dict[str, bytes] = {
    "length.safetensors": safetensors(b"{" + b" " * 99, 32 * 2**20),
    "length64.safetensors": safetensors(b"{" + b" " * 99, 2**64 - 1),
    "shape.safetensors": safetensors({"a": entry([2**40, 2**7], 2**49)}),
    "empty.safetensors": safetensors({"a": entry([2**40, 0], 0)}),
    "many.safetensors": safetensors({"a": entry([1] * 50_000, 4)}),
    "deep.safetensors": safetensors(b'{"a":' + b"[" * 200_000),
    "tensors.gguf": gguf(2**62, 0),
    "pairs.gguf": gguf(0, 2**62),
    "string.gguf": gguf(0, 1, text(b"name", 2**62)),
    "value.gguf": gguf(0, 1, text(b"a") + struct.pack("<I", 8) + text(b"b", 2**40)),
    "array.gguf": gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 10, 2**40)),
    "arrays.gguf": gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 9, 2**30) * 8),
    "sides.gguf": gguf(1, 0, tensor(b"a", [2**31, 2**31], 0, 0)),
    "blocks.gguf": gguf(1, 0, tensor(b"a", [2**36, 32], 8, 0)),
    "twice.gguf": gguf(2, 0, tensor(b"a", [16], 0, 0) + tensor(b"b", [16], 0, 0) + bytes(128)),
}


def test_no_header_makes_us_allocate_more_than_its_file_holds(tmp_path: Path) -> None:
    (tmp_path / "sound.safetensors").write_bytes(safetensors({"a": entry([1], 4)}) + bytes(4))
    (tmp_path / "sound.gguf").write_bytes(gguf(1, 0, tensor(b"a", [4], 0, 0)).ljust(96, b"\0"))
    for name, content in LIES.items():
        (tmp_path / f"lie-{name}").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", OPENING, str(tmp_path), str(SPARE_BYTES)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    found = dict(line.removeprefix("lie-").split(maxsplit=1) for line in told)
    assert found.keys() == LIES.keys()
    assert found.pop("empty.safetensors") == "opened 0"
    assert set(found.values()) == {"CorruptFile"}, found
    assert last == "limited"
