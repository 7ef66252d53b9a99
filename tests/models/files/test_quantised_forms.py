"""ComfyUI's newer forms of scaled files: each within its own error of the plain model, the others named."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.errors import TensorMismatch, UnknownModel
from sigmagraph.engine.models import Conditioning, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.files.detect import find_parts
from sigmagraph.engine.models.files.fp8 import multiplied_out, packed_bytes, scaled_bytes
from sigmagraph.engine.models.files.quantisation import readable
from sigmagraph.engine.models.files.read import FileSlice, open_weights
from sigmagraph.engine.models.files.summary import summarise
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from tests.models.conftest import Unpack
from tests.models.microscaling import in_mxfp8, in_nvfp4, in_rotated_int8
from tests.weights import drawn_weights

SHAPE = MMDiTShape(2, 128, 64, 96, 8)
Form = Callable[[Tensor], tuple[Tensor, ...]]
ROTATED = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}


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


FORMS: dict[str, tuple[str | dict[str, object], Form, float]] = {
    "float8": ("float8_e4m3fn", by_tensor(torch.float8_e4m3fn), 0.027),
    "float8 e5m2": ("float8_e5m2", by_tensor(torch.float8_e5m2), 0.054),
    "float8 in blocks": ("float8_e4m3fn_blockwise", in_blocks, 0.027),
    "int8": ("int8_tensorwise", in_int8, 0.012),
    "int8 by row": ("int8_tensorwise", in_int8_by_row, 0.009),
    "int8 by row, flat": ("int8_tensorwise", in_int8_by_flat_row, 0.009),
    "int8 rotated": (ROTATED, partial(in_rotated_int8, group=64), 0.009),
    "mxfp8": ("mxfp8", in_mxfp8, 0.028),
    "nvfp4": ("nvfp4", in_nvfp4, 0.1),
}


def said_of(case: str) -> dict[str, object]:
    said = FORMS[case][0]
    return {"format": said} if isinstance(said, str) else said


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
        made = form(values)
        tensors |= dict(zip((name, f"{layer}.weight_scale", f"{layer}.weight_scale_2"), made, strict=False))
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
    monkeypatch.setattr(RESIDENCY, "choices", MemoryChoices(memory=memory, model="fp32"))
    _, form, bound = FORMS[case]
    path = written(tmp_path / "small.safetensors", dense, said_of(case), form)
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
    for case, is_taken in (("float8", True), ("float8 in blocks", False), ("int8", False), ("mxfp8", False)):
        path = written(tmp_path / "x.safetensors", dense, said_of(case), FORMS[case][1])
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
        ({"format": "convrot_w4a4"}, "is stored as 'convrot_w4a4'"),
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


def test_small_forms_grow_as_comfy_kitchen_has_them_bit_for_bit(unpack: Unpack, tmp_path: Path) -> None:
    recorded = load_file(unpack("comfy_quantised.safetensors"))
    for layer, said in (("large", {"format": "nvfp4"}), ("odd", {"format": "nvfp4"}), ("mx", {"format": "mxfp8"})):
        assert torch.equal(grown(recorded, layer, said, tmp_path), recorded[f"{layer}.expected"].float()), layer
    turned = grown(recorded, "rotated", ROTATED, tmp_path)  # a product: summed in the processor's order
    torch.testing.assert_close(turned, recorded["rotated.expected"], rtol=0, atol=2e-7)


def grown(recorded: dict[str, Tensor], layer: str, said: dict[str, object], folder: Path) -> Tensor:
    inside = {name: values for name, values in recorded.items() if name.startswith(f"{layer}.weight")}
    save_file({**inside, f"{layer}.comfy_quant": note(said)}, folder / "one.safetensors")
    (found,) = multiplied_out(readable(open_weights(folder / "one.safetensors")).weights).values()
    return found.read()


def told_in_header(
    path: Path, said: dict[str, object], prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The file with what its layers say in one table of its header; its tensors now, and that table."""
    stored = load_file(path)
    kept = {prefix + name: stored[name].clone() for name in stored if not name.endswith(".comfy_quant")}
    layers = {name.removesuffix(".weight_scale"): said for name in kept if name.endswith(".weight_scale")}
    save_file(kept, path, {"_quantization_metadata": json.dumps({"layers": layers}), "who": "me"})
    return kept, dict(layers)


@pytest.mark.parametrize("case", ["mxfp8", "nvfp4", "int8 rotated"])
def test_the_header_says_the_same_without_the_tensors(tmp_path: Path, dense: dict[str, Tensor], case: str) -> None:
    path = written(tmp_path / "x.safetensors", dense, said_of(case), FORMS[case][1])
    before = predicted(path)
    bare, layers = told_in_header(path, said_of(case))
    assert torch.equal(predicted(path), before)
    layers = {**layers, "joint_blocks.7.x_block.mlp.fc1": said_of(case)}
    for broken in ("[]", "{", '{"layers": [1]}', '{"layers": {"a": 1}}', json.dumps({"layers": layers})):
        save_file(bare, path, {"_quantization_metadata": broken})
        with pytest.raises(UnknownModel, match=r"_quantization_metadata|joint_blocks.7.*has no weight"):
            find_parts(open_weights(path))


def test_what_a_header_says_of_its_layers_does_not_outlive_them(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    """In another precision they are stored otherwise, and in a part or a whole they have other names."""
    path = written(tmp_path / "x.safetensors", dense, said_of("mxfp8"), in_mxfp8)
    before = predicted(path)
    told_in_header(path, said_of("mxfp8"))
    runner, grown, whole = CliRunner(), tmp_path / "grown.safetensors", tmp_path / "whole.safetensors"
    assert runner.invoke(app, ["convert", str(path), "--to", "fp32", "--out", str(grown)]).exit_code == 0
    with safe_open(grown, "pt") as file:
        assert file.metadata() == {"who": "me"}
    assert load_diffusion_model(grown).recipe.weights.keys() == dense.keys()
    assert runner.invoke(app, ["convert", str(path), "--join", "--out", str(whole)]).exit_code == 0
    assert torch.equal(predicted(whole), before)
    vae = {"first_stage_model.decoder.conv_in.weight": torch.ones(8, 16, 3, 3)}
    kept, layers = told_in_header(path, said_of("mxfp8"), "model.diffusion_model.")
    save_file({**kept, **vae}, path, {"_quantization_metadata": json.dumps({"layers": layers})})
    assert runner.invoke(app, ["convert", str(path), "--split", "--out", str(tmp_path / "m")]).exit_code == 0
    assert torch.equal(predicted(tmp_path / "m/diffusion_models/x.safetensors"), before)


@pytest.mark.parametrize("case", FORMS)
def test_opening_touches_no_page_of_the_map(
    tmp_path: Path, dense: dict[str, Tensor], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes may lie all over a file: each touch of the map would read what the disk's read-ahead is, megabytes."""

    def touched(place: FileSlice) -> Tensor:
        raise AssertionError(f"{place.entry} was mapped")

    path = written(tmp_path / "x.safetensors", dense, said_of(case), FORMS[case][1])
    monkeypatch.setattr(FileSlice, "__call__", touched)
    assert len(load_diffusion_model(path).recipe.weights) == len(dense)


def test_models_name_the_small_forms(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    named = {"mxfp8": "mxfp8", "nvfp4": "nvfp4", "int8 rotated": "int8 scaled", "float8": "float8_e4m3fn scaled"}
    dense["pos_embed"] = torch.zeros(1, 48**2, SHAPE.width).half()  # larger than any one matrix, as Large's
    for case, expected in named.items():
        path = written(tmp_path / "x.safetensors", dense, said_of(case), FORMS[case][1])
        assert summarise(path).precision == expected


def test_nvfp4_that_does_not_say_how_its_scales_lie_is_named(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    path = written(tmp_path / "x.safetensors", dense, said_of("nvfp4"), in_nvfp4)
    bare = {name: tensor for name, tensor in load_file(path).items() if not name.endswith(".comfy_quant")}
    save_file(bare, path)
    with pytest.raises(UnknownModel, match=r"nvfp4 without a word on how its scales lie.*take the file in float8"):
        load_diffusion_model(path)


@pytest.mark.parametrize(
    ("case", "change", "words"),
    [
        ("nvfp4", lambda made: made[:2], "weight_scale_2 is missing"),
        ("nvfp4", lambda made: (made[0], made[1][:-128].clone(), made[2]), "scales, and takes"),
        ("nvfp4", lambda made: (made[0], made[1], torch.ones(3)), "its scale of all is not one number"),
        ("mxfp8", lambda made: (made[0], made[1][:, :2].contiguous()), "scales, and takes"),
        ("mxfp8", lambda made: (made[0][:, :-8].contiguous(), made[1]), "whole blocks of 32"),
    ],
)
def test_parts_of_small_forms_that_do_not_belong_together_are_an_error(
    tmp_path: Path,
    dense: dict[str, Tensor],
    case: str,
    change: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    words: str,
) -> None:
    path = written(tmp_path / "x.safetensors", dense, said_of(case), lambda values: change(FORMS[case][1](values)))
    with pytest.raises(TensorMismatch, match=words):
        load_diffusion_model(path)


@pytest.mark.parametrize("group", [0, 3, 8, 4096, -4, "64", 2**40])
def test_groups_of_a_rotation_that_cannot_be_are_an_error(
    tmp_path: Path, dense: dict[str, Tensor], group: object
) -> None:
    said = {**ROTATED, "convrot_groupsize": group}
    path = written(tmp_path / "x.safetensors", dense, said, partial(in_rotated_int8, group=64))
    with pytest.raises(TensorMismatch):
        load_diffusion_model(path)


def test_a_split_keeps_small_forms_as_they_are(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    path = written(tmp_path / "bare.safetensors", dense, said_of("nvfp4"), in_nvfp4)
    whole = {"model.diffusion_model." + name: tensor for name, tensor in load_file(path).items()}
    save_file(
        {**whole, "first_stage_model.decoder.conv_in.weight": torch.ones(8, 16, 3, 3)}, tmp_path / "all.safetensors"
    )
    done = CliRunner().invoke(
        app, ["convert", str(tmp_path / "all.safetensors"), "--split", "--out", str(tmp_path / "m")]
    )
    assert done.exit_code == 0, done.output
    assert torch.equal(predicted(tmp_path / "m/diffusion_models/all.safetensors"), predicted(path))


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


@pytest.mark.parametrize("case", ["float8", "int8", "mxfp8", "nvfp4"])
def test_a_scale_that_is_missing_is_an_error(tmp_path: Path, dense: dict[str, Tensor], case: str) -> None:
    path = written(tmp_path / "x.safetensors", dense, said_of(case), FORMS[case][1])
    layer = "joint_blocks.0.x_block.mlp.fc1"
    save_file({name: tensor for name, tensor in load_file(path).items() if name != f"{layer}.weight_scale"}, path)
    with pytest.raises(TensorMismatch, match=rf"x.safetensors: {layer} is quantised.*weight_scale is missing"):
        load_diffusion_model(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64])
def test_integers_that_nothing_scales_are_an_error(
    tmp_path: Path, dense: dict[str, Tensor], dtype: torch.dtype
) -> None:
    name = "joint_blocks.0.x_block.mlp.fc1.weight"
    save_file(dense | {name: torch.ones(dense[name].shape, dtype=dtype)}, tmp_path / "x.safetensors")
    with pytest.raises(TensorMismatch, match=f"1 stored as integers, without a scale: {name}"):
        load_diffusion_model(tmp_path / "x.safetensors")


def test_a_format_that_is_not_a_name_is_an_error(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    for said in ({"format": ["int8_tensorwise"]}, {"format": {}}):
        path = written(tmp_path / "x.safetensors", dense, said, in_int8)
        with pytest.raises(UnknownModel, match="is stored as"):
            load_diffusion_model(path)


def test_a_float8_matrix_without_a_scale_among_scaled_ones_is_told(
    tmp_path: Path, dense: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (f"joint_blocks.{block}.x_block.mlp.fc1" for block in (0, 1))
    small, scale = by_tensor(torch.float8_e4m3fn)(dense[f"{first}.weight"])
    scaled = {f"{first}.weight": small, f"{first}.scale_weight": scale}
    save_file(dense | scaled, tmp_path / "x.safetensors")
    load_diffusion_model(tmp_path / "x.safetensors")
    assert not caplog.records
    save_file(dense | scaled | {f"{second}.weight": small.clone()}, tmp_path / "x.safetensors")
    load_diffusion_model(tmp_path / "x.safetensors")
    assert f"1 float8 matrices have no scale, {second}.weight first" in caplog.text
