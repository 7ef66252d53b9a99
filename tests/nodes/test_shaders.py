"""Fragment shaders against the same arithmetic written in torch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.curves import table_of

HEAD = """#version 300 es
%s
precision highp float;
uniform sampler2D u_image0;
uniform float u_float0;
uniform int u_int0;
uniform int u_pass;
uniform vec2 u_resolution;
uniform sampler2D u_curve0;
in vec2 v_texCoord;
layout(location = 0) out vec4 fragColor0;
layout(location = 1) out vec4 second;
"""
PICTURE = torch.rand(2, 7, 5, 3, generator=torch.Generator().manual_seed(3))


def made(body: str, pragma: str = "", picture: Tensor = PICTURE, **more: Any) -> list[Tensor]:
    given = {"size_mode": {"size_mode": "from_input"}, "images": {"image0": picture}, **more}
    return list(NODES["GLSLShader"](fragment_shader=HEAD % pragma + body, **given))


def shown(expression: str, declared: str = "", **more: Any) -> Tensor:
    return made(
        f"{declared}\nvoid main() {{ vec4 c = texture(u_image0, v_texCoord); fragColor0 = {expression}; }}", **more
    )[0]


def test_a_picture_passes_through_exactly_and_a_second_colour_is_its_own() -> None:
    colours = made("void main() { fragColor0 = texture(u_image0, v_texCoord); second = vec4(fragColor0.bgr, 1.0); }")
    torch.testing.assert_close(colours[0], PICTURE, atol=2e-6, rtol=0)
    torch.testing.assert_close(colours[1], PICTURE.flip(-1), atol=2e-6, rtol=0)
    assert not colours[2].any()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (
            "vec4(mix(c.rgb, vec3(dot(c.rgb, vec3(0.2, 0.7, 0.1))), 0.25), 1.0)",
            PICTURE * 0.75 + (PICTURE * torch.tensor([0.2, 0.7, 0.1])).sum(-1, keepdim=True) * 0.25,
        ),
        ("vec4(pow(c.rgb, vec3(2.2)) * step(0.3, c.rgb), 1)", PICTURE.pow(2.2) * (PICTURE >= 0.3)),
        ("vec4(c.r > 0.5 ? c.rgb : 1.0 - c.rgb, 1.0)", torch.where(PICTURE[..., :1] > 0.5, PICTURE, 1 - PICTURE)),
        ("vec4(fract(c.rgb * 3.0), 1.0)", (PICTURE * 3) % 1),
        ("vec4(vec3(float(7 / 2) / 10.0 + float(-7 % 4) / -30.0), 1.0)", torch.full((2, 7, 5, 3), 0.4)),
        ("vec4(vec3(float((0xF0F0F0F0u * 3u) >> 28u) / 16.0), 1.0)", torch.full((2, 7, 5, 3), 13 / 16)),
        ("vec4(vec3(u_float0 + float(u_int0)), 1.0)", torch.full((2, 7, 5, 3), 0.75)),
    ],
)
def test_expressions_are_those_of_the_language(expression: str, expected: Tensor) -> None:
    found = shown(expression, floats={"u_float0": -1.25}, ints={"u_int0": 2})
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)


def test_branches_loops_and_returns_are_each_pixels_own() -> None:
    declared = """
    float f(float x) { if (x > 0.7) return 1.0; if (x < 0.2) { return 0.0; } x *= 0.5; return x; }
    float f(vec2 p) { return p.x; }
    void twice(inout float x, out float y) { x = x * 2.0; y = 0.25; }
    float steps(float x) {
        float n = 0.0;
        for (int i = 0; i < 10; i++) {
            if (i == 3) continue;
            if (x * 10.0 < float(i)) break;
            n += 1.0;
        }
        return n / 10.0;
    }
    float half_of(float x) { float a = x / 4.0, b; twice(a, b); return a + b - 0.25 + f(vec2(0.0)); }
    """
    found = shown("vec4(f(c.r), steps(c.g), half_of(c.b), 1.0)", declared)
    red, green, blue = PICTURE.unbind(-1)
    expected = torch.where(red > 0.7, 1.0, torch.where(red < 0.2, 0.0, red * 0.5))
    counted = sum(((green * 10 >= i) * 1.0 for i in range(10) if i != 3), torch.zeros_like(green)) / 10
    torch.testing.assert_close(found, torch.stack([expected, counted, blue / 2], -1), atol=5e-6, rtol=0)


def test_the_origin_is_at_the_bottom_left_and_texels_are_fetched() -> None:
    found = shown("vec4(v_texCoord, gl_FragCoord.y / u_resolution.y, 1.0)")
    assert float(found[0, -1, 0, 1]) == pytest.approx(0.5 / 7)
    assert torch.equal(found[..., 1], found[..., 2])
    texel = shown("texelFetch(u_image0, ivec2(0, 0), 0) * float(textureSize(u_image0, 0).x) / 5.0")
    torch.testing.assert_close(texel, PICTURE[:, -1:, :1].expand_as(PICTURE))


def test_passes_read_what_the_one_before_has_drawn() -> None:
    body = "void main() { fragColor0 = vec4(texture(u_image0, v_texCoord).rgb * 0.5 + float(u_pass) * 0.1, 1.0); }"
    torch.testing.assert_close(made(body, "#pragma passes 3")[0], PICTURE / 8 + 0.25, atol=1e-5, rtol=0)


def test_curves_and_a_size_of_its_own() -> None:
    curve = {"points": [[0, 1], [1, 0]], "interpolation": "linear"}
    found = shown("vec4(texture(u_curve0, vec2(v_texCoord.x, 0.5)).r)", curves={"u_curve0": curve})
    assert found.shape[-1] == 4
    torch.testing.assert_close(found[0, 0, :, 0], 1 - (torch.arange(5) + 0.5) / 5, atol=3e-3, rtol=0)
    sized = made("void main() { fragColor0 = vec4(1); }", size_mode={"size_mode": "custom", "width": 3, "height": 2})
    assert sized[0].shape == (2, 2, 3, 3)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("void main() { fragColor0 = vec4(1.0) }", "';'"),
        ("void main() { fragColor0 = vec4(nothing); }", "nothing"),
        ("void main() { fragColor0 = vec4(1.0) * 2; }", "one type"),
        ("void main() { fragColor0 = frobnicate(1.0); }", "frobnicate"),
        ("struct A { float x; };", "structures"),
        ("float a[3];", "arrays"),
        ("#define X 1", "macros"),
        ("float f(float x) { return f(x); } void main() { fragColor0 = vec4(f(1.0)); }", "calls deep"),
        ("void main() { fragColor0 = vec4(" + "(" * 500 + "1.0" + ")" * 500 + "); }", "levels"),
        ("", "no function main"),
    ],
)
def test_what_is_no_shader_is_refused_with_its_line(body: str, reason: str) -> None:
    with pytest.raises(BadValue, match=reason.replace("(", r"\(")):
        made(body)


def test_a_loop_without_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sigmagraph.nodes.support.glsl_run.DEADLINE_S", 0.2)
    with pytest.raises(BadValue, match="more than"):
        made("void main() { for (;;) { fragColor0 = vec4(1.0); } }")


def test_a_monotone_curve_passes_its_points_and_never_overshoots() -> None:
    points = [[0.0, 0.0], [0.25, 0.8], [0.5, 0.8], [1.0, 1.0]]
    table = table_of({"points": points, "interpolation": "monotone_cubic"}, 101)
    assert [table[round(x * 100)] for x, _ in points] == pytest.approx([y for _, y in points])
    assert all(one <= other + 1e-12 for one, other in zip(table, table[1:], strict=False))
    assert table[25:51] == pytest.approx([0.8] * 26)
    assert table_of(None, 3) == [0.0, 0.5, 1.0]


def test_a_histogram_counts_every_pixel_once() -> None:
    rgb, luminance, red, green, blue = NODES["ImageHistogram"](image=PICTURE)
    assert [sum(channel) for channel in (rgb, luminance, red, green, blue)] == pytest.approx([35.0] * 5)
    assert NODES["ImageHistogram"](image=torch.ones(1, 2, 2, 3))[1][255] == 4.0
