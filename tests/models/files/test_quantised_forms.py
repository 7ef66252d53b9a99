"""ComfyUI's newer forms of scaled files: each within its own error of the plain model, the others named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.errors import TensorMismatch, UnknownModel
from sigmagraph.engine.models import Conditioning, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.files.detect import find_parts
from sigmagraph.engine.models.files.fp8 import packed_bytes, scaled_bytes
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.memory.choices import Choices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from tests.weights import drawn_weights

SHAPE = MMDiTShape(2, 128, 64, 96, 8)
Form = Callable[[Tensor], tuple[Tensor, Tensor]]


def by_tensor(dtype: torch.dtype) -> Form:
    def rounded(values: Tensor) -> tuple[Tensor, Tensor]:
        scale = values.abs().amax() / torch.finfo(dtype).max
        return (values / scale).to(dtype), scale

    return rounded


def in_int8(values: Tensor) -> tuple[Tensor, Tensor]:
    scale = values.abs().amax() / 127
    return (values / scale).round().to(torch.int8), scale


def in_int8_by_row(values: Tensor) -> tuple[Tensor, Tensor]:
    scale = values.abs().amax(dim=1, keepdim=True) / 127
    return (values / scale).round().to(torch.int8), scale


def in_int8_by_flat_row(values: Tensor) -> tuple[Tensor, Tensor]:
    small, scale = in_int8_by_row(values)
    return small, scale.flatten()


def in_blocks(values: Tensor) -> tuple[Tensor, Tensor]:
    grouped = values.unflatten(1, (-1, 64)).unflatten(0, (-1, 64))  # [a, 64, b, 64]
    scale = grouped.abs().amax(dim=(1, 3)) / 448
    return (grouped / scale[:, None, :, None]).reshape(values.shape).to(torch.float8_e4m3fn), scale


FORMS: dict[str, tuple[str, Form, float]] = {
    "float8": ("float8_e4m3fn", by_tensor(torch.float8_e4m3fn), 0.027),
    "float8 e5m2": ("float8_e5m2", by_tensor(torch.float8_e5m2), 0.054),
    "float8 in blocks": ("float8_e4m3fn_blockwise", in_blocks, 0.027),
    "int8": ("int8_tensorwise", in_int8, 0.012),
    "int8 by row": ("int8_tensorwise", in_int8_by_row, 0.009),
    "int8 by row, flat": ("int8_tensorwise", in_int8_by_flat_row, 0.009),
}


@pytest.fixture
def dense() -> dict[str, Tensor]:
    return drawn_weights(SHAPE)


def note(said: object) -> Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


def written(path: Path, dense: dict[str, Tensor], said: dict[str, object], form: Form) -> Path:
    """Every matrix of a block as `form` makes it, with the tensors that ComfyUI writes beside it."""
    tensors: dict[str, Tensor] = {}
    for name, values in dense.items():
        if not (name.startswith("joint_blocks.") and name.endswith(".weight") and values.ndim == 2):
            tensors[name] = values
            continue
        layer = name.removesuffix(".weight")
        tensors[name], tensors[f"{layer}.weight_scale"] = form(values)
        tensors[f"{layer}.input_scale"] = torch.ones(())
        tensors[f"{layer}.comfy_quant"] = note(said)
    save_file(tensors, path)
    return path


def predicted(path: Path) -> Tensor:
    torch.manual_seed(1)
    model = load_diffusion_model(path)
    text = Conditioning(torch.randn(1, 7, 96), torch.randn(1, 64))
    return model.predict(torch.randn(1, 16, 8, 8), 0.5, [text])[0]


@pytest.mark.parametrize("memory", ["resident", "stream"])
@pytest.mark.parametrize("case", FORMS)
def test_a_form_is_within_its_error_of_the_plain_model_and_stays_small(
    tmp_path: Path, dense: dict[str, Tensor], case: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sigmagraph.engine.models.memory.streamed.STREAMED_FROM_BYTES", 0)
    monkeypatch.setattr(RESIDENCY, "choices", Choices(memory=memory, model="fp32"))
    said, form, bound = FORMS[case]
    path = written(tmp_path / "small.safetensors", dense, {"format": said}, form)
    weights = find_parts(open_weights(path)).mmdit
    assert weights is not None
    assert weights.keys() == dense.keys()
    matrices = [name for name in dense if name.startswith("joint_blocks.") and dense[name].ndim == 2]
    for name in matrices:
        assert packed_bytes(weights[name]) < 1.05 * dense[name].numel()  # as stored, and the scales
        error = (weights[name].read() - dense[name]).norm() / dense[name].norm()
        assert 0.001 < error < bound, name
    save_file(dense | {name: weights[name].read() for name in matrices}, tmp_path / "grown.safetensors")
    torch.testing.assert_close(predicted(path), predicted(tmp_path / "grown.safetensors"), rtol=0, atol=1e-6)
    save_file(dense, tmp_path / "plain.safetensors")
    plain = predicted(tmp_path / "plain.safetensors")
    assert (predicted(path) - plain).norm() / plain.norm() < 2 * bound
    RESIDENCY.free()


def test_one_scale_or_one_a_row_is_multiplied_as_bytes_and_blocks_are_not(
    tmp_path: Path, dense: dict[str, Tensor]
) -> None:
    name = "joint_blocks.0.x_block.mlp.fc1.weight"
    for case, is_taken in (("float8", True), ("float8 in blocks", False), ("int8", False)):
        path = written(tmp_path / "x.safetensors", dense, {"format": FORMS[case][0]}, FORMS[case][1])
        weights = find_parts(open_weights(path)).mmdit
        assert weights is not None
        assert (scaled_bytes(weights[name]) is not None) == is_taken, case


def test_conversion_multiplies_int8_out(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    path = written(tmp_path / "small.safetensors", dense, {"format": "int8_tensorwise"}, in_int8)
    target = tmp_path / "grown.safetensors"
    done = CliRunner().invoke(app, ["convert", str(path), "--to", "fp32", "--out", str(target)])
    assert done.exit_code == 0, done.output
    grown = load_file(target)
    assert grown.keys() == dense.keys()
    assert all((grown[name] - values).norm() < 0.012 * values.norm() for name, values in dense.items())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"format": "int8_tensorwise", "convrot": True}, "is rotated before it is rounded"),
        ({"format": "nvfp4"}, "is stored as 'nvfp4'"),
        ({"format": "mxfp8"}, "is stored as 'mxfp8'"),
        ({"format": "tomorrow's"}, 'is stored as "tomorrow\'s"'),
        ([1], "is not a JSON object"),
    ],
)
def test_other_forms_are_named_with_the_way_out(
    tmp_path: Path, dense: dict[str, Tensor], said: dict[str, object], words: str
) -> None:
    path = written(tmp_path / "x.safetensors", dense, said, in_int8)
    with pytest.raises(UnknownModel) as caught:
        load_diffusion_model(path)
    assert words in str(caught.value)
    done = CliRunner().invoke(app, ["convert", str(path), "--to", "bf16"])
    assert done.exit_code == 1
    assert not list(tmp_path.glob("*bf16*"))


def test_the_header_says_the_same_without_the_tensors(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    path = written(tmp_path / "x.safetensors", dense, {"format": "int8_tensorwise"}, in_int8)
    bare = {name: tensor for name, tensor in load_file(path).items() if not name.endswith(".comfy_quant")}
    layer = "joint_blocks.0.x_block.mlp.fc1"
    for said, is_read in (
        ({"format": "int8_tensorwise"}, True),
        ({"format": "int8_tensorwise", "convrot": True}, False),
    ):
        save_file(bare, path, {"_quantization_metadata": json.dumps({"layers": {layer: said}})})
        if is_read:
            assert find_parts(open_weights(path)).mmdit
        else:
            with pytest.raises(UnknownModel, match=f"{layer} is rotated"):
                find_parts(open_weights(path))
    for broken in ("[]", "{", '{"layers": [1]}', '{"layers": {"a": 1}}'):
        save_file(bare, path, {"_quantization_metadata": broken})
        with pytest.raises(UnknownModel, match="_quantization_metadata"):
            find_parts(open_weights(path))


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("weight.absmax", "4 bits of bitsandbytes"),
        ("weight.quant_state.bitsandbytes__nf4", r"nf4 \(bitsandbytes\)"),
        ("weight.SCB", "int8 of bitsandbytes"),
    ],
)
def test_files_of_bitsandbytes_are_named(tmp_path: Path, dense: dict[str, Tensor], mark: str, words: str) -> None:
    layer = "joint_blocks.0.x_block.mlp.fc1."
    save_file(dense | {layer + mark: torch.zeros(8)}, tmp_path / "x.safetensors")
    with pytest.raises(UnknownModel, match=f"{words}.*take the file in float8, GGUF or 16 bits"):
        load_diffusion_model(tmp_path / "x.safetensors")


@pytest.mark.parametrize("scale", [torch.ones(7), torch.ones(0), torch.ones(1, 1, 2), torch.ones(3, 5)])
def test_a_scale_that_does_not_divide_its_weight_is_an_error(
    tmp_path: Path, dense: dict[str, Tensor], scale: Tensor
) -> None:
    path = written(
        tmp_path / "x.safetensors", dense, {"format": "int8_tensorwise"}, lambda v: (in_int8(v)[0], scale.clone())
    )
    with pytest.raises(TensorMismatch, match="do not combine"):
        load_diffusion_model(path)
