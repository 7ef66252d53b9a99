"""Requests nobody means: real ones with something wrong in them, and things that never were one. Strategies."""

import json
import re
import struct
import uuid
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from sigmagraph.engine.graph.reading.png import SIGNATURE
from tests.server.fuzz.client import Request

GRAPH = {
    "5": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": 1}, "_meta": {"title": "Canvas"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
}
CANVAS: dict[str, Any] = {
    "id": 5,
    "type": "EmptyImage",
    "mode": 0,
    "inputs": [],
    "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
    "widgets_values": [8, 8, 1],
}
DRAWING: dict[str, Any] = {
    "nodes": [
        CANVAS,
        {"id": 9, "type": "PreviewImage", "mode": 0, "inputs": [{"name": "images", "type": "IMAGE", "link": 1}]},
    ],
    "links": [[1, 5, 0, 9, 0, "IMAGE"]],
    "definitions": {"subgraphs": []},
    "extra": {"groupNodes": {}},
    "version": 0.4,
}
CYCLE = {
    "1": {"class_type": "Fail", "inputs": {"images": ["2", 0], "how": "now"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
CHAIN = {str(at): {"class_type": "LoadImage", "inputs": {"image": [str(at + 1), 0]}} for at in range(3000)}
ENDPOINT = {"prompt": "a lighthouse", "width": 64, "height": 64, "samples": 1, "seed": 3, "base64": True, "steps": 5}
JOB = str(uuid.UUID(int=1))
"""The id of a job that there is."""
BODIES: tuple[Any, ...] = (
    {"prompt": GRAPH, "client_id": "c", "prompt_id": JOB, "number": 1, "front": True, "extra_data": {}},
    {"prompt": DRAWING},
    {"prompt": CYCLE},
    {"prompt": CHAIN | GRAPH},
    {"prompt": {str(at): node for at in range(400) for node in GRAPH.values()}},
    DRAWING,
    {"workflow": GRAPH, "set": {"Canvas.color": 3}, "wait_s": 0, "dry_run": True, "psnr": 30},
    {"workflow": DRAWING, "parameters": {"colour": "5.color"}, "outputs": {"image": "9"}, "description": "d"},
    {"parameters": {"colour": 7}, "version": 1, "webhook": {"url": "http://127.0.0.1/", "secret": "s"}},
    {"image": {"filename": "x_00001_.png", "subfolder": "", "type": "output"}, "wait_s": 0},
    {"job_id": JOB, "wait_s": 0},
    {"name": "kept", "wait_s": 0},
    {"delete": [JOB], "clear": False},
    {"clear": True},
    {"prompt_id": JOB},
    {"unload_models": True, "free_memory": True},
    {"Comfy.Sidebar": 1, "x": [1]},
    {"username": "me"},
    {"job_ids": [JOB]},
    {"enabled": True, "clientId": "c"},
    ENDPOINT,
    {**ENDPOINT, "sampler": "euler", "scheduler": "normal", "guidance_scale": 4.5, "negative_prompt": "b"},
)
LONG, DEEP = "x" * 10_000_000, 100_000
PATHS = (
    "../../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "CON",
    "a/b",
    "x" * 300,
    "~",
    "%00",
    ".hidden",
    "é",
)
LITERALS: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    10**30,
    2**64,
    10**400,
    "",
    "0",
    "NaN",
)
SHAPES: tuple[Any, ...] = (
    [],
    {},
    [[]],
    ["5", 0],
    ["5", -1],
    ["nowhere", 10**20],
    {"__value__": ["x", 0]},
    [None] * 1000,
)
HUGE: tuple[Any, ...] = (LONG, {str(at): at for at in range(100_000)}, list(range(300_000)))
RAW: tuple[bytes, ...] = (
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b'{"prompt": ' + b"[" * DEEP,
    b'{"prompt": {"1": ' + b"9" * 200_000 + b"}}",
    b"[" + b"[]," * 4_000_000 + b"[]]",
    b"\xff\xfe\x00",
    b"\x00" * 100_000,
    b"{",
    b"null",
    b'"text"',
    b"\xef\xbb\xbf{}",
    b"--x\r\nContent-Disposition: form-data; name=image; filename=../a.png\r\n\r\nno end",
    b"\x1f\x8b" + b"\0" * 100,
)
QUERIES = (
    *(
        "after",
        "channel",
        "clientId",
        "dir",
        "dry_run",
        "expires",
        "filename",
        "form",
        "full_info",
        "limit",
        "max_items",
    ),
    *(
        "offset",
        "overwrite",
        "path",
        "preview",
        "psnr",
        "recurse",
        "set",
        "signature",
        "sort_by",
        "sort_order",
        "split",
    ),
    *("status", "subfolder", "token", "type", "version", "wait_s", "workflow_id"),
)
FORM = "multipart/form-data; boundary=x"
TYPES = ("application/json", "text/plain", "image/png", FORM, "multipart/form-data", "", "a/b; charset=nonsense")
ODD_HEADERS = (
    ("Idempotency-Key", "k"),
    ("Idempotency-Key", "x" * 5000),
    ("Last-Event-ID", "-1"),
    ("Last-Event-ID", "9" * 400),
    ("Last-Event-ID", "²"),
    ("Range", "bytes=9-1"),
    ("Range", "bytes=" + "0-0," * 2000),
    ("If-Modified-Since", "yesterday"),
    ("Accept-Encoding", "gzip, br;q=nonsense"),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "deflate"),
    ("Transfer-Encoding", "chunked"),
    ("Content-Length", "99999999999999"),
    ("Content-Length", "-1"),
    ("Origin", "http://evil.example"),
    ("Cookie", "sigmagraph_key=" + "x" * 3000),
    ("Authorization", "Bearer \xff"),
    ("Authorization", "Basic !!!"),
    ("x-api-key", "nobody"),
    ("Expect", "100-continue"),
    ("Upgrade", "websocket"),
    ("Host", "evil.example"),
    ("Host", "[::1"),
    ("Host", "127.0.0.1:99999999"),
    ("Origin", "http://["),
    ("Origin", "null"),
    ("Sec-Fetch-Site", "cross-site"),
)


def chunk(kind: bytes, body: bytes, *, length: int | None = None, crc: int | None = None) -> bytes:
    """A PNG chunk, or one that lies."""
    size = len(body) if length is None else length
    return struct.pack(">I", size) + kind + body + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)


END = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
BOMB = zlib.compress(b"[" * (200 << 20), 9)
LARGE_HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0))


def texts(keyword: bytes, text: bytes) -> bytes:
    return SIGNATURE + chunk(b"tEXt", keyword + b"\0" + text) + END


CARRIERS: tuple[bytes, ...] = (
    texts(b"prompt", json.dumps(GRAPH).encode()),
    texts(b"workflow", json.dumps(DRAWING).encode()),
    texts(b"prompt", b"[" * DEEP),
    texts(b"lock", b"{}") + texts(b"prompt", b"{}"),
    SIGNATURE + chunk(b"zTXt", b"prompt\0\0" + BOMB) + END,
    SIGNATURE + chunk(b"iTXt", b"prompt\0\1\0\0\0" + BOMB) + END,
    SIGNATURE + chunk(b"tEXt", b"prompt\0{}", length=2**32 - 1) + END,
    SIGNATURE + chunk(b"tEXt", b"prompt\0{}", crc=1) + END,
    SIGNATURE + LARGE_HEADER + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""),
    SIGNATURE + chunk(b"tEXt", b"") * 10_000 + END,
    b"RIFF\xff\xff\xff\xffWEBPEXIF\xff\xff\xff\xff" + b"II*\0" * 100,
    b"RIFF\x20\0\0\0WEBPEXIF\x10\0\0\0II*\0\x08\0\0\0\xff\xff\x0f\x01\x02\0",
    b"\xff\xd8\xff\xe1\x00\x20Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x0f\0\2\xff\xff\xff\xff\0\0\0\0",
    b"\xff\xd8" + b"\xff\xe1\x00\x02" * 20_000,
    b"\x89PNG\r\n\x1a\n",
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with bytes changed, cut off or put in."""
    data = bytearray(draw(st.sampled_from(CARRIERS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, min(len(data), 4000) - 1)))
        match draw(st.sampled_from(("change", "cut", "insert"))):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[max(at, 12) :]
            case _:
                data[at:at] = draw(st.binary(max_size=12))
    return bytes(data)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """WebSocket frames: any opcode, any flags, masked or not, with lengths that may lie."""
    written = b""
    for _ in range(draw(st.integers(0, 5))):
        text = draw(
            st.sampled_from((b'{"type": "feature_flags", "data": {}}', b"[" * 5000, b"\xff", b"null"))
            | st.binary(max_size=30)
        )
        first = draw(st.integers(0, 255) | st.sampled_from((0x81, 0x82, 0x88, 0x89, 0x01, 0x00, 0xC1)))
        kind = draw(st.sampled_from(("true", "true", "true", "long", "longer", "unmasked")))
        match kind:
            case "long":
                head = struct.pack(">BBH", first, 0x80 | 126, 65535)
            case "longer":
                head = struct.pack(">BBQ", first, 0x80 | 127, draw(st.sampled_from((2**63, 2**40, 5 << 20, 0))))
            case "unmasked":
                head = struct.pack(">BB", first, min(len(text), 125))
            case _:
                head = struct.pack(">BBH", first, 0x80 | 126, len(text))
        written += head + (b"" if kind == "unmasked" else b"\0\0\0\0") + text
    return written


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a document."""
    found = [path]
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(inner)[:20]:
        found += places(value, (*path, key))
    return found


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value in one place."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


PLACES: Mapping[int, list[tuple[Any, ...]]] = {at: places(body) for at, body in enumerate(BODIES)}
made_up = st.recursive(
    st.sampled_from(LITERALS + PATHS) | st.text(max_size=20) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
wrong = (
    made_up
    | st.sampled_from(SHAPES)
    | st.integers(0, 60).flatmap(lambda luck: st.sampled_from(HUGE) if luck == 0 else made_up)
)


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """A real body with one to three wrong values."""
    which = draw(st.integers(0, len(BODIES) - 1))
    body = BODIES[which]
    for _ in range(draw(st.integers(0, 3))):
        try:
            body = replaced(body, draw(st.sampled_from(PLACES[which])), draw(wrong))
        except (KeyError, IndexError, TypeError, AttributeError):  # the place went with an earlier change
            break
    return body


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


@st.composite
def multiparts(draw: st.DrawFn) -> bytes:
    """A form, more or less."""
    name = draw(st.sampled_from(("file", "image", "mask", "original_ref", "set", "subfolder", "overwrite", "dry_run")))
    filename = draw(
        st.sampled_from(("", *(f'; filename="{quote(file)}"' for file in ("a.png", "../a.png", "x" * 300))))
    )
    data = draw(damaged() | documents().map(as_json) | st.binary(max_size=50))
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode()
    return head + data + draw(st.sampled_from((b"\r\n--x--\r\n", b"", b"\r\n--x", b"\r\n--x\r\n\r\n--x--")))


bodies = (
    st.just(b"")
    | documents().map(as_json)
    | documents().map(as_json)
    | wrong.map(as_json)
    | damaged()
    | multiparts()
    | st.binary(max_size=200)
    | st.integers(0, 10).flatmap(lambda luck: st.sampled_from(RAW) if luck == 0 else documents().map(as_json))
)
words = st.sampled_from(
    (
        *PATHS,
        JOB,
        "kept",
        "checkpoints",
        "x_00001_.png",
        "0",
        "-1",
        "9" * 400,
        "a.json",
        "stable-diffusion-3.5-large-txt2img",
    )
)
words |= st.text(max_size=12)


def requests(routes: list[tuple[str, str]]) -> st.SearchStrategy[Request]:
    """Requests to these routes."""

    @st.composite
    def one(draw: st.DrawFn) -> Request:
        method, path = draw(st.sampled_from(routes))
        if method == "*" or draw(st.integers(0, 20)) == 0:
            method = draw(
                st.sampled_from(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"))
            )
        target = re.sub(r"\{[^}]*\}", lambda _: escaped(draw(words)), path)
        query = draw(st.lists(st.tuples(st.sampled_from(QUERIES), words), max_size=3))
        if query:
            target += "?" + "&".join(f"{name}={escaped(value)}" for name, value in query)
        body = draw(bodies) if method not in ("GET", "HEAD") or draw(st.integers(0, 9)) == 0 else b""
        headers = [("Content-Type", draw(st.sampled_from(TYPES)))] if body else []
        headers += draw(st.lists(st.sampled_from(ODD_HEADERS), max_size=1)) if draw(st.integers(0, 3)) == 0 else []
        return Request(method, target, tuple(headers), body)

    return one()


def escaped(word: str) -> str:
    return quote(word.encode("utf-8", "surrogatepass"), safe="")
