"""Small real nodes for the server's tests: pictures without torch, waits that can be cancelled, failures."""

import io
import time
from collections.abc import Generator
from typing import Annotated, Any

from PIL import Image

from sigmagraph.engine.graph.comfy.comfy_class import from_class
from sigmagraph.engine.graph.node import (
    FileIn,
    Hidden,
    Node,
    Options,
    Progress,
    Range,
    Replacement,
    Services,
    Socket,
    Tooltip,
    UiResult,
    node,
)
from sigmagraph.engine.graph.results import Blocker, Expansion
from sigmagraph.engine.jobs.workers.worker import Picture, Setup
from sigmagraph.engine.writing import write_new

Pixels = Annotated[Any, Socket("IMAGE")]
Engine = Annotated[Services, Hidden("SERVICES")]


GONE = Replacement(
    "GoneImage",
    "EmptyImage",
    ("w",),
    inputs=(("width", {"old_id": "w"}), ("height", {"set_value": 8}), ("color", {"set_value": 7})),
)


@node("EmptyImage", category="image", outputs=("IMAGE",), replaces=(GONE,))
def empty_image(
    *,
    width: Annotated[int, Range(1, 16384)] = 512,
    height: Annotated[int, Range(1, 16384)] = 512,
    color: Annotated[int, Range(0, 0xFFFFFF), Tooltip("a colour")] = 0,
) -> Any:
    """One flat colour."""
    return Image.new("RGB", (width, height), color)


@node("SaveImage", category="image", output_node=True)
def save_image(*, images: Pixels, filename_prefix: str = "ComfyUI", services: Engine) -> UiResult:
    """Save it."""
    return _saved(images, services, filename_prefix, "output")


@node("PreviewImage", category="image", output_node=True)
def preview_image(*, images: Pixels, services: Engine) -> UiResult:
    """Show it."""
    return _saved(images, services, "ComfyUI_temp_aaaaa", "temp")


@node("LoadImage", category="image", outputs=("IMAGE",))
def load_image(*, image: Annotated[str, FileIn("input", upload="image")], services: Engine) -> Any:
    """Read it."""
    return Image.open(services.path("input", image)).convert("RGB")


@node("Slow", category="test", outputs=("IMAGE",))
def slow(*, seconds: float = 60.0, steps: int = 1000, turn: int = 0) -> Generator[Progress, None, Any]:
    """Waits, step by step, with a preview now and then."""
    for step in range(steps):
        yield Progress(step + 1, steps, preview="a glance" if step % 10 == 0 else None)
        time.sleep(seconds / steps)
    return Image.new("RGB", (8, 8))


@node("Fail", category="test", output_node=True)
def fail(*, images: Pixels, how: Annotated[str, Options(["now", "later"])] = "now") -> UiResult:
    """Raises."""
    raise RuntimeError(f"failed {how}")


@node("Text", category="test", outputs=("STRING",))
def text(*, value: str = "", flag: bool = False, factor: Annotated[float, Range(0.0, 1.0)] = 0.5) -> str:
    """A text."""
    return f"{value}{flag}{factor}"


@node("ShowText", category="test", output_node=True)
def show_text(*, text: Annotated[str, Socket("STRING")]) -> UiResult:
    """Shows a text."""
    return UiResult(ui={"text": [text]})


@node("Send", category="test", output_node=True)
def send(*, images: Pixels) -> Generator[Progress, None, UiResult]:
    """A result over the socket."""
    yield Progress(0, 1, preview=images)
    return UiResult()


@node("Block", category="test", outputs=("IMAGE",))
def block(*, images: Pixels, message: str = "") -> Any:
    """Stops what follows, with a message or without."""
    return Blocker(message or None)


@node("Expand", category="test", outputs=("IMAGE",))
def expand(*, images: Pixels) -> Any:
    """Puts a slow node in its place."""
    return Expansion({"inner": {"class_type": "Slow", "inputs": {"seconds": 0.0, "steps": 3}}}, (["inner", 0],))


@node("Pick", category="test", output_node=True)
def pick(*, letter: Annotated[str, Options([f"letter {i}" for i in range(30)])] = "letter 0") -> UiResult:
    """One of many."""
    return UiResult(ui={"text": [letter]})


class Picky:
    """A class of ComfyUI's convention that checks its own input."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "go", ("INT",), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"number": ("INT", {"default": 1, "min": 0, "max": 9})}}

    @classmethod
    def VALIDATE_INPUTS(cls, number: int) -> bool | str:  # noqa: N802  # the convention's name
        return True if number % 2 == 0 else f"{number} is odd"

    def go(self, number: int) -> tuple[int]:
        return (number,)


LIBRARY = (empty_image, save_image, preview_image, load_image, slow, fail, text, show_text, send, block, expand, pick)
NODES: dict[str, Node] = {made.class_type: made for made in LIBRARY} | {"Picky": from_class(Picky, "Picky")}
PREVIEW = Picture("image/jpeg", b"\xff\xd8 a glance \xff\xd9")


def encode_preview(value: Any) -> Picture | None:
    """The preview of these nodes."""
    if isinstance(value, Image.Image):
        return Picture("image/png", png(value), {"is_result": True})
    return PREVIEW if value is not None else None


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def setup(services: Any) -> Setup:
    """The composition of the tests' worker."""
    counts = {"loads": 2, "evictions": 0, "compiled": {"graphs": 3, "recompiles": 1, "failure": ""}}
    return Setup(NODES, services, encode_preview=encode_preview, counts=lambda: counts)


def _saved(image: Image.Image, services: Services, prefix: str, kind: str) -> UiResult:
    root = services.output_dir if kind == "output" else services.temp_dir
    root.mkdir(parents=True, exist_ok=True)
    names = (f"{prefix}_{count:05}_.png" for count in range(1, 100_000))
    path = write_new(root, names, png(image))
    return UiResult(ui={"images": [{"filename": path.name, "subfolder": "", "type": kind}]})


def picture_graph(color: int = 0xFF0000, **more: Any) -> dict[str, Any]:
    """A flat picture, saved; `more` are further nodes by id."""
    return {
        "5": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": color}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    } | more


def slow_graph(turn: int = 0) -> dict[str, Any]:
    """A minute of waiting."""
    return {
        "1": {"class_type": "Slow", "inputs": {"seconds": 60.0, "steps": 1000, "turn": turn}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
