"""Pictures by fragment shaders, and the curves and histograms that go with them."""

from collections.abc import Generator, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.graph.node import (
    Autogrow,
    DynamicCombo,
    Extra,
    Multiline,
    Output,
    Progress,
    Range,
    Socket,
    input_of,
    node,
)
from sigmagraph.nodes.support.curves import table_of
from sigmagraph.nodes.support.glsl_parse import Shader, parse
from sigmagraph.nodes.support.glsl_run import rendered
from sigmagraph.nodes.support.glsl_values import GlslValue
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES"]

Curve = Annotated[Mapping[str, Any] | None, Socket("CURVE")]
CURVE_SIZE = 256
REC_709 = (0.2126, 0.7152, 0.0722)
DEFAULT = """#version 300 es
precision highp float;

uniform sampler2D u_image0;

in vec2 v_texCoord;
layout(location = 0) out vec4 fragColor0;

void main() {
    fragColor0 = texture(u_image0, v_texCoord);
}
"""
Side = Annotated[int, Range(1, 16384)]
SIZES = DynamicCombo({"from_input": [], "custom": [input_of("width", Side, 512), input_of("height", Side, 512)]})
IMAGES = Autogrow.numbered(input_of("image", Image), "image", least=1, most=5)
FLOATS = Autogrow.numbered(input_of("u_float", Annotated[float, Socket("FLOAT")], None), "u_float", least=0, most=20)
INTS = Autogrow.numbered(input_of("u_int", Annotated[int, Socket("INT")], None), "u_int", least=0, most=20)
BOOLS = Autogrow.numbered(input_of("u_bool", Annotated[bool, Socket("BOOLEAN")], None), "u_bool", least=0, most=10)
CURVES = Autogrow.numbered(input_of("u_curve", Curve, None), "u_curve", least=0, most=4)


@node(
    "GLSLShader", category="image/shader", experimental=True, outputs=[Output("IMAGE", f"IMAGE{at}") for at in range(4)]
)
def glsl_shader(
    *,
    fragment_shader: Annotated[str, Multiline()] = DEFAULT,
    size_mode: Annotated[dict[str, Any], SIZES],
    images: Annotated[dict[str, Tensor], IMAGES],
    floats: Annotated[dict[str, float] | None, FLOATS] = None,
    ints: Annotated[dict[str, int] | None, INTS] = None,
    bools: Annotated[dict[str, bool] | None, BOOLS] = None,
    curves: Annotated[dict[str, Mapping[str, Any]] | None, CURVES] = None,
) -> Generator[Progress, None, tuple[Tensor, ...]]:
    """Run a fragment shader of GLSL ES 3.00 over every picture; computed here, without OpenGL."""
    shader = parse(fragment_shader)
    first = next(iter(images.values()))
    height, width = size_mode.get("height", first.shape[1]), size_mode.get("width", first.shape[2])
    given = {**_numbers("float", floats), **_numbers("int", ints), **_numbers("bool", bools)}
    given |= {name: _curve(curve) for name, curve in (curves or {}).items()}
    given["u_resolution"] = GlslValue("float", torch.tensor([float(width), float(height)]))
    made: list[list[Tensor]] = []
    for at in range(first.shape[0]):
        yield Progress(at, first.shape[0])
        textures = {f"u_{name}": _texture(image[min(at, len(image) - 1)]) for name, image in images.items()}
        made.append(_passes(shader, {**given, **textures}, height, width))
    return tuple(_batch([colours[slot] for colours in made]) for slot in range(4))


def _passes(shader: Shader, given: dict[str, GlslValue], height: int, width: int) -> list[Tensor]:
    """All passes; each reads the first colour of the one before as the first picture."""
    colours: list[Tensor] = []
    for number in range(max(1, shader.passes)):
        given["u_pass"] = GlslValue("int", torch.tensor([number]))
        colours = rendered(shader, given, height, width, torch.device("cpu"))
        given["u_image0"] = GlslValue("sampler2D", colours[0])
    black = torch.zeros(height, width, 4)
    black[..., 3] = 1.0
    return [*colours, *[black] * 4][:4]


def _numbers(base: str, values: Mapping[str, Any] | None) -> dict[str, GlslValue]:
    kinds = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}
    return {name: GlslValue(base, torch.tensor([value], dtype=kinds[base])) for name, value in (values or {}).items()}


def _curve(curve: Mapping[str, Any]) -> GlslValue:
    table = torch.tensor(table_of(curve, CURVE_SIZE))
    return GlslValue("sampler2D", table[None, :, None].expand(1, CURVE_SIZE, 4))


def _texture(image: Tensor) -> GlslValue:
    opaque = torch.ones(*image.shape[:2], 1)
    return GlslValue("sampler2D", (image if image.shape[-1] == 4 else torch.cat([image[..., :3], opaque], -1)).float())


def _batch(colours: Sequence[Tensor]) -> Tensor:
    """One batch, 0 to 1; with transparency where any picture has some."""
    batch = torch.stack(list(colours)).nan_to_num().clamp(0.0, 1.0)
    return batch if bool((batch[..., 3] < 1.0).any()) else batch[..., :3].contiguous()


@node("CurveEditor", category="utils", display_name="Curve Editor", outputs=[Output("CURVE", "curve")])
def curve_editor(
    *,
    curve: Annotated[Mapping[str, Any] | None, Socket("CURVE")] = None,
    histogram: Annotated[Any, Socket("HISTOGRAM"), Extra({"forceInput": True})] = None,
) -> Mapping[str, Any]:
    """A curve drawn in the page, through points; without any it changes nothing."""
    drawn = curve if curve is not None else {"points": [[0, 0], [1, 1]], "interpolation": "linear"}
    table_of(drawn, 2)
    return drawn


@node(
    "ImageHistogram",
    category="image",
    display_name="Image Histogram",
    outputs=[Output("HISTOGRAM", name) for name in ("rgb", "luminance", "red", "green", "blue")],
)
def image_histogram(*, image: Image) -> tuple[list[float], ...]:
    """How many pixels of the first picture have each of 256 intensities; `rgb` is the mean of the three colours."""
    picture = image[0, ..., :3].expand(-1, -1, 3)
    colours = [_counted(picture[..., at]) for at in range(3)]
    luminance = (picture * torch.tensor(REC_709)).sum(-1)
    return torch.stack(colours).mean(0).tolist(), _counted(luminance).tolist(), *(colour.tolist() for colour in colours)


def _counted(values: Tensor) -> Tensor:
    return torch.bincount((values.clamp(0, 1) * 255).round().long().flatten(), minlength=256).float()


NODES = (glsl_shader, curve_editor, image_histogram)
