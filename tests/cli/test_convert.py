"""`sigmagraph convert`: what is written is what was read, or within the error that is told."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.errors import StaleFile, TensorMismatch, WriteFailed
from sigmagraph.engine.models import load_checkpoint, load_diffusion_model, load_text_encoders, load_vae
from sigmagraph.engine.models.files.convert import PIECE, SHRUNK, TARGETS, WRITTEN, ConvertTarget, is_block_matrix, kept
from sigmagraph.engine.models.files.quantise import SHRINK
from sigmagraph.engine.models.files.read import StoredTensor, is_quantised, open_weights
from sigmagraph.engine.models.files.write import write_gguf, write_safetensors
from sigmagraph.engine.writing import drafted
from tests.tiny import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors")


def convert(*arguments: object, fails: str = "") -> str:
    done = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert (done.exit_code != 0) == bool(fails), done.output
    assert fails in done.stderr
    return done.stderr


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata() or {}


PARTS = (
    *("diffusion_models/tiny", "vae/tiny_vae"),
    *(f"text_encoders/tiny_{name}" for name in ("clip_l", "clip_g", "t5xxl")),
)


@pytest.fixture(scope="module")
def apart(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    models = tmp_path_factory.mktemp("models")
    convert(checkpoint, "--split", "--out", models)
    return [models / f"{part}.safetensors" for part in PARTS]


def test_a_checkpoint_taken_apart_and_put_together_is_the_same_to_the_bit(
    checkpoint: Path, apart: list[Path], tmp_path: Path
) -> None:
    convert(*reversed(apart), "--join", "--out", tmp_path / "whole.safetensors")
    tensors, metadata = contents(tmp_path / "whole.safetensors")
    before, said = contents(checkpoint)
    assert metadata == said
    assert tensors.keys() == before.keys()
    for name, tensor in before.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_parts_draw_what_the_checkpoint_draws(checkpoint: Path, apart: list[Path]) -> None:
    model, clip, vae = load_checkpoint(checkpoint)
    assert clip is not None
    assert vae is not None
    alone = load_diffusion_model(apart[0]), load_text_encoders(apart[2:]), load_vae(apart[1])
    said, x = clip.encode("a large red circle"), torch.randn(1, 16, 8, 8)
    assert torch.equal(alone[1].encode("a large red circle").context, said.context)
    assert torch.equal(alone[0].predict(x, 0.5, [said])[0], model.predict(x, 0.5, [said])[0])
    assert torch.equal(alone[2].decode(x), vae.decode(x))


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_another_precision_is_torchs_rounding(checkpoint: Path, tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    convert(checkpoint, "--to", name, "--out", tmp_path / "x.safetensors")
    after = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(after[name], tensor.to(dtype)) for name, tensor in load_file(checkpoint).items())


def test_numbers_that_float16_cannot_hold_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    save_file({"joint_blocks.0.a.weight": torch.full((2, 2), 1e5)}, tmp_path / "large.safetensors")
    convert(tmp_path / "large.safetensors", "--to", "fp16", fails="beyond float16's 65504; bf16 holds them")
    assert [path.name for path in tmp_path.iterdir()] == ["large.safetensors"]


@pytest.mark.parametrize("name", ["fp8_scaled", *WRITTEN])
def test_numbers_that_no_scale_fits_are_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    """One such number makes its block, or the whole matrix, NaN. Here it is the last of the second piece."""
    numbers = torch.ones((SHRUNK if name in WRITTEN else PIECE) // 1024 + 1, 1024)
    for wrong in (math.inf, -math.inf, math.nan, *([1e8] if name in WRITTEN else [])):
        numbers[-1, -1] = wrong
        save_file({"joint_blocks.0.x.weight": numbers}, tmp_path / "odd.safetensors")
        tensors = ConvertTarget(name).tensors(open_weights(tmp_path / "odd.safetensors").weights)
        with pytest.raises(TensorMismatch, match=r"joint_blocks\.0\.x\.weight: infinity.*bf16 holds such numbers"):
            write_safetensors(tmp_path, ["y"], tensors, {})
        assert [path.name for path in tmp_path.iterdir()] == ["odd.safetensors"]


def test_numbers_made_of_others_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    """What a merge of half precision comes to, say."""
    stored = StoredTensor((2,), torch.float16, lambda: torch.tensor([1.0, 1e5]))
    with pytest.raises(TensorMismatch, match="a: numbers beyond float16's 65504"):
        write_safetensors(tmp_path, ["y"], [kept("a", stored)], {})


@pytest.mark.parametrize("name", TARGETS)
def test_matrices_of_integers_without_a_scale_are_refused(tmp_path: Path, name: str) -> None:
    """Loaders refuse them; rounded to another precision they would be taken."""
    save_file({"joint_blocks.0.x.weight": torch.ones(4, 32, dtype=torch.int8)}, tmp_path / "x.safetensors")
    with pytest.raises(TensorMismatch, match=r"joint_blocks\.0\.x\.weight is stored as torch\.int8 without a scale"):
        ConvertTarget(name).tensors(open_weights(tmp_path / "x.safetensors").weights)


@pytest.mark.parametrize("name", [None, *TARGETS])
def test_what_has_no_elements_is_written(tmp_path: Path, name: str | None) -> None:
    for number, tensors in enumerate(({}, {"joint_blocks.0.x.weight": torch.zeros(0, 32)})):
        save_file(tensors, tmp_path / "x.safetensors")
        made = ConvertTarget(name).tensors(open_weights(tmp_path / "x.safetensors").weights)
        write = write_gguf if name in WRITTEN else write_safetensors
        again = open_weights(write(tmp_path, [str(number)], made, {})).weights
        assert {key: again[key].shape for key in tensors} == {key: values.shape for key, values in tensors.items()}


def test_the_smallest_numbers_have_a_scale_of_float8(tmp_path: Path) -> None:
    tiny = torch.full((4, 4), 1e-43)
    save_file({"joint_blocks.0.x.weight": tiny}, tmp_path / "x.safetensors")
    convert(tmp_path / "x.safetensors", "--to", "fp8_scaled", "--out", tmp_path / "y.safetensors")
    after = load_file(tmp_path / "y.safetensors")
    grown = after["joint_blocks.0.x.weight"].float() * after["joint_blocks.0.x.scale_weight"]
    assert bool(((grown - tiny).abs() <= tiny).all())


def test_half_a_character_in_a_header_is_carried_on(tmp_path: Path) -> None:
    head = {"__metadata__": {"note": "half \ud800"}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(head).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    convert(tmp_path / "x.safetensors", "--to", "bf16", "--out", tmp_path / "y.safetensors")
    assert open_weights(tmp_path / "y.safetensors").metadata == {"note": "half \ud800"}


def test_scaled_float8_is_within_its_error_and_predicts_nearly_the_same(apart: list[Path], tmp_path: Path) -> None:
    told = convert(apart[0], "--to", "fp8_scaled", "--out", tmp_path / "small.safetensors")
    after, before = load_file(tmp_path / "small.safetensors"), load_file(apart[0])
    rounded = [name for name, tensor in after.items() if tensor.dtype == torch.float8_e4m3fn and tensor.numel()]
    assert len(rounded) > 10
    assert after["scaled_fp8"].numel() == 0
    for name in rounded:
        scale = after[name.removesuffix(".weight") + ".scale_weight"]
        grown = after[name].float() * scale
        assert float(after[name].float().abs().max()) == 448.0
        # half a unit in the last of three bits, and where float8 has no more bits
        assert bool(((grown - before[name].float()).abs() <= grown.abs() / 15 + scale * 2**-10).all())
    assert "error 2." in told
    model, other = load_diffusion_model(tmp_path / "small.safetensors"), load_diffusion_model(apart[0])
    assert all(torch.equal(after[name], before[name]) for name in before if name not in rounded)
    assert model.spec == other.spec


@pytest.mark.parametrize("name", SHRINK)
def test_blocks_are_those_of_the_gguf_package(name: str) -> None:
    values = torch.randn(3000, 32, generator=torch.Generator().manual_seed(0)) * 0.02
    values[0], values[1], values[2] = 0, 0.5, -0.5
    values[3:1000] = values[3:1000].bfloat16().float()
    values[1000:1500] = (values[1000:1500] * 800).round() / 64  # many halves between two codes
    kind = gguf.GGMLQuantizationType[name]
    theirs = gguf.quants.quantize(values.numpy(), kind)
    assert np.array_equal(SHRINK[name](values).numpy(), theirs)


@pytest.mark.parametrize("form", WRITTEN)
def test_gguf_holds_what_the_gguf_package_would_make(apart: list[Path], tmp_path: Path, form: str) -> None:
    path, kind = tmp_path / "x.gguf", gguf.GGMLQuantizationType[form.removeprefix("gguf:")]
    convert(apart[0], "--to", form, "--out", path)
    stored, before = open_weights(path).weights, load_file(apart[0])
    assert stored.keys() == before.keys()
    for name, tensor in before.items():
        assert is_quantised(stored[name]) == is_block_matrix(name, stored[name])
        values = tensor.float()
        if is_quantised(stored[name]):
            values = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), kind), kind))
        assert torch.equal(stored[name].read().float(), values)
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}  # another reader takes it for one
    assert {name: tuple(int(side) for side in tensor.shape)[::-1] for name, tensor in read.items()} == {
        name: tuple(tensor.shape) for name, tensor in before.items()
    }


def test_t5_in_gguf_has_llama_cpps_names_and_encodes_within_the_error(apart: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "t5.gguf"
    told = convert(apart[4], "--to", "gguf:Q8_0", "--out", path)
    assert "error 0.5" in told
    reader = gguf.GGUFReader(path)
    names = {tensor.name for tensor in reader.tensors}
    assert {"token_embd.weight", "enc.blk.0.attn_rel_b.weight", "enc.output_norm.weight"} <= names
    assert reader.get_field("t5encoder.attention.head_count").contents() == 2
    convert(path, "--to", "gguf:Q4_0", "--out", tmp_path / "smaller.gguf")
    smaller = gguf.GGUFReader(tmp_path / "smaller.gguf")
    assert {name: field.contents() for name, field in smaller.fields.items()} == {
        **{name: field.contents() for name, field in reader.fields.items()},
        "general.file_type": 2,
    }
    ids = torch.tensor([[3, 4, 5, 1]])
    before, after = (load_text_encoders([file]).encoders["t5xxl"].encode(ids).hidden for file in (apart[4], path))
    assert float((after - before).norm() / before.norm()) < 0.02
    again = load_text_encoders([*apart[2:4], path])  # its metadata came along: a tokenizer, the shortest length
    assert (
        again.encode("a red circle").context.shape == load_text_encoders(apart[2:]).encode("a red circle").context.shape
    )


def test_a_checkpoint_is_quantised_part_by_part(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, "--to", "gguf:Q8_0", fails="a diffusion model or a T5 alone")
    convert(checkpoint, "--split", "--to", "gguf:Q8_0", "--out", tmp_path)
    assert {path.suffix for path in (tmp_path / "diffusion_models").iterdir()} == {".gguf"}
    assert {path.suffix for path in (tmp_path / "vae").iterdir()} == {".safetensors"}
    assert {path.name for path in (tmp_path / "text_encoders").iterdir()} == {
        *("tiny_clip_l.safetensors", "tiny_clip_g.safetensors", "tiny_t5xxl.gguf")
    }


def test_a_file_that_is_there_is_replaced_only_when_told(apart: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"mine")
    convert(apart[0], "--to", "bf16", "--out", out, fails="is there already; --force replaces it")
    assert out.read_bytes() == b"mine"
    convert(apart[0], "--to", "bf16", "--out", out, "--force")
    assert load_file(out)


def test_what_was_written_is_told_in_json(apart: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    done = CliRunner().invoke(app, ["convert", str(apart[0]), "--to", "bf16", "--out", str(out), "--json"])
    [told] = json.loads(done.stdout)
    assert (told["file"], told["bytes"]) == (str(out), sum(tensor.nbytes for tensor in load_file(out).values()))
    assert 0 < told["error"]["share"] <= told["error"]["worst"] < 2**-8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "int3"], "--to: 'int3' is not allowed"),
        ([], "--to, --split or --join"),
        (["--split", "--join"], "--to, --split or --join"),
        (["--split"], "nothing to split"),
        (["--to", "gguf:Q8_0", "--out", "x.safetensors"], "a name that ends in .gguf"),
    ],
)
def test_what_cannot_be_done_says_what_can(apart: list[Path], options: list[str], words: str) -> None:
    convert(apart[0], *options, fails=words)


def test_a_part_that_comes_twice_is_named(apart: list[Path]) -> None:
    convert(apart[0], apart[0], "--join", fails="a file without transformer")
    convert(apart[1], "--join", fails="a file with a diffusion model among them")


@pytest.mark.parametrize("name", [None, *TARGETS])
def test_no_piece_in_work_is_larger_than_its_bound(apart: list[Path], name: str | None, tmp_path: Path) -> None:
    save_file({"joint_blocks.0.x.weight": torch.ones(PIECE // 512 + 3, 1024)}, tmp_path / "x.safetensors")

    def room(elements: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(elements, dtype=dtype)

    for tensor in ConvertTarget(name).tensors(open_weights(tmp_path / "x.safetensors").weights):
        assert all(piece.nbytes <= 4 * PIECE for piece in tensor.pieces(room))


def test_a_source_that_is_cut_short_meanwhile_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "x.safetensors"
    save_file({name: torch.ones(1 << 20) for name in ("a.weight", "b.weight")}, source)
    tensors, told = ConvertTarget(None).tensors(open_weights(source).weights), list[int]()

    def cut(written: int) -> None:
        told.append(written)
        os.truncate(source, 5 << 20)  # within the second tensor

    with pytest.raises(StaleFile, match="changed on disk since it was opened"):
        write_safetensors(tmp_path, ["y.safetensors"], tensors, {}, cut)
    assert sum(told) == 1 << 20  # what follows is there still, and belongs to nothing
    assert list(tmp_path.iterdir()) == [source]


def written_over(source: Path) -> None:
    with source.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))
    os.utime(source, ns=(0, 0))


@pytest.mark.parametrize("change", [lambda source: os.truncate(source, 4096), written_over])
@pytest.mark.parametrize("name", [None, *TARGETS])
def test_a_source_that_changes_meanwhile_is_an_error_for_every_target(
    name: str | None, change: Callable[[Path], None], tmp_path: Path
) -> None:
    source = tmp_path / "x.safetensors"
    numbers = torch.linspace(-1, 1, 3 * PIECE).half().reshape(-1, 1024)
    stored = numbers.float() if name == "fp16" else numbers
    save_file({f"joint_blocks.0.{letter}.weight": stored.clone() for letter in "ab"}, source)
    tensors = ConvertTarget(name).tensors(open_weights(source).weights)
    with pytest.raises(StaleFile, match="since it was opened"):
        write_safetensors(tmp_path, ["y"], tensors, {}, lambda _: change(source))
    assert list(tmp_path.iterdir()) == [source]


def test_a_draft_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="No space left"), drafted(tmp_path, ["a"]):
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyError), drafted(tmp_path, ["a"]):
        raise KeyError("x")
    assert not list(tmp_path.iterdir())


def test_a_new_file_is_named_after_the_whole_name_of_what_was_read(apart: list[Path], tmp_path: Path) -> None:
    tensors = load_file(apart[0])
    for name in ("sd3.5_large", "sd3.5_medium.fp16", "m-00001-of-00001", "pipe/transformer/diffusion_pytorch_model"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "m.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(tensors, "m-00001-of-00001.safetensors")})
    )
    (tmp_path / "there").mkdir()
    for given, options, made in (
        ("sd3.5_large.safetensors", (), "sd3.5_large-bf16.safetensors"),
        ("sd3.5_medium.fp16.safetensors", (), "sd3.5_medium-bf16.safetensors"),
        ("m.safetensors.index.json", (), "m-bf16.safetensors"),
        ("pipe/transformer", (), "pipe/transformer-bf16.safetensors"),  # in the folder it would be a second model
        ("sd3.5_large.safetensors", ("--out", tmp_path / "there"), "there/sd3.5_large-bf16.safetensors"),
    ):
        convert(tmp_path / given, "--to", "bf16", *options)
        assert load_file(tmp_path / made).keys() == tensors.keys(), made
    convert(tmp_path / "m-00001-of-00001.safetensors", "--to", "fp16")
    assert (tmp_path / "m-fp16.safetensors").is_file()


def test_what_is_read_is_never_written_over(apart: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(apart[0].read_bytes())
    (tmp_path / "link.safetensors").symlink_to(path)
    for out in (path, tmp_path / "link.safetensors"):
        convert(path, "--to", "bf16", "--out", out, "--force", fails="what is read stays as it is")
    assert path.read_bytes() == apart[0].read_bytes()
    assert (tmp_path / "link.safetensors").is_symlink()


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_conversion_that_is_ended_leaves_nothing(apart: list[Path], tmp_path: Path, is_heard: bool) -> None:
    """Where a terminal's end was not to be heard, as under nohup, it is not."""
    out = tmp_path / "x.safetensors"
    slow = (
        "import os, signal\n"
        f"signal.signal(signal.SIGHUP, signal.{'SIG_DFL' if is_heard else 'SIG_IGN'})\n"
        "from sigmagraph.engine.models.files import write\n"
        "pour = write._pour\n"
        "def poured(*tensor):\n"
        "    pour(*tensor)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "write._pour = poured\n"
        "from sigmagraph.engine.cli.app import main\n"
        f"main(['convert', {str(apart[0])!r}, '--to', 'bf16', '--out', {str(out)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", slow], capture_output=True, text=True)
    assert done.returncode == (128 + signal.SIGHUP if is_heard else 0), done.stderr
    assert [*tmp_path.iterdir()] == ([] if is_heard else [out])


def test_two_conversions_to_one_name_do_not_replace_each_other(
    apart: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.safetensors"
    before = write_safetensors

    def meanwhile(*arguments: Any, **more: Any) -> Path:
        out.write_bytes(b"the other's")
        return before(*arguments, **more)

    monkeypatch.setattr("sigmagraph.engine.models.files.write.write_safetensors", meanwhile)
    convert(apart[0], "--to", "bf16", "--out", out, fails="every name for the new file is taken")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the other's"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t5: t5.pop("shared.weight"), "not a T5 v1.1 encoder: 'shared.weight' is missing or misshapen"),
        (lambda t5: t5.update({"encoder.block.x.layer.0.q.weight": torch.ones(2)}), "not a T5 v1.1 encoder"),
        (lambda t5: t5.update({"extra": torch.ones(2, dtype=torch.bool)}), "extra: torch.bool is nothing that a GGUF"),
    ],
)
def test_what_gguf_cannot_hold_is_told(
    apart: list[Path], tmp_path: Path, change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    t5 = load_file(apart[-1])
    change(t5)
    save_file(t5, tmp_path / "t5.safetensors")
    convert(tmp_path / "t5.safetensors", "--to", "gguf:Q8_0", fails=words)
    assert [path.name for path in tmp_path.iterdir()] == ["t5.safetensors"]
