"""One owner of networks: loaded once, shared, least recently used first, back to where it was; each load accounted."""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sigmagraph.engine.errors import CorruptFile, OutOfMemory, StaleFile
from sigmagraph.engine.execution.cache.footprint import footprint
from sigmagraph.engine.models import Adapter, Conditioning, Model, load_checkpoint, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.memory import plan, residency, resident, streamed
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from tests.weights import drawn_weights

SHAPE = MMDiTShape(2, 128, 64, 96, 12)
FC1 = "diffusion_model.joint_blocks.0.x_block.mlp.fc1"
ENTRY = Conditioning(torch.ones(1, 5, 96), torch.ones(1, 64))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_choices() -> Iterator[None]:
    before = RESIDENCY.choices
    RESIDENCY.free()
    yield
    RESIDENCY.choices = before


def written(path: Path, seed: int = 0, dtype: torch.dtype = torch.float16) -> Path:
    save_file({name: tensor.to(dtype) for name, tensor in drawn_weights(SHAPE, seed).items()}, path)
    return path


def predicted(model: Model) -> torch.Tensor:
    return model.predict(torch.ones(1, 16, 8, 8), 0.5, [ENTRY])[0]


def adapter(seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(512, 4, generator=generator), torch.randn(4, 128, generator=generator)
    return Adapter(Path(f"{seed}.safetensors"), {FC1: {"up": up, "down": down}})


def test_nothing_is_read_until_a_network_is_used_and_then_once(tmp_path: Path) -> None:
    loads = RESIDENCY.load_count
    path = written(tmp_path / "a.safetensors")
    model, again = load_diffusion_model(path), load_diffusion_model(path)
    assert RESIDENCY.load_count == loads
    assert torch.equal(predicted(model), predicted(again))
    assert RESIDENCY.load_count == loads + 1
    (there,) = RESIDENCY.counts()["resident"]
    assert (there["mode"], there["device"], there["is_in_use"]) == ("resident", "cpu", False)
    assert there["bytes"] == RESIDENCY.bytes_on(CPU) > 0
    RESIDENCY.free()
    assert RESIDENCY.counts()["resident"] == []


def test_a_network_goes_with_the_last_value_that_could_ask_for_it(tmp_path: Path) -> None:
    model = load_diffusion_model(written(tmp_path / "a.safetensors"))
    before = RESIDENCY.bytes_on(CPU)
    predicted(model)
    assert RESIDENCY.bytes_on(CPU) - before == sum(p.nbytes for p in model.network.parameters())
    twin = model.with_skipped_layers([0])
    del model
    gc.collect()
    assert RESIDENCY.bytes_on(CPU) > before
    del twin
    gc.collect()
    assert RESIDENCY.bytes_on(CPU) == before


def test_another_strength_merges_only_what_the_adapter_touches(tmp_path: Path) -> None:
    base = load_diffusion_model(written(tmp_path / "a.safetensors"))
    whole = sum(p.nbytes for p in base.network.parameters())
    weight = base.network.joint_blocks[0].x_block.mlp.fc1.weight
    before = RESIDENCY.bytes_on(CPU)
    found = [predicted(base.with_adapter(adapter(1), strength)) for strength in (0.5, 0.7)]
    kept = base.with_adapter(adapter(1), 0.9)
    predicted(kept)
    assert RESIDENCY.bytes_on(CPU) - before == weight.nbytes < whole / 5
    assert not torch.equal(*found)
    assert all(
        mine.data_ptr() == theirs.data_ptr()
        for (name, mine), theirs in zip(kept.network.named_parameters(), base.network.parameters(), strict=True)
        if name != "joint_blocks.0.x_block.mlp.fc1.weight"
    )


def test_many_strengths_leave_few_networks_behind(tmp_path: Path) -> None:
    base = load_diffusion_model(written(tmp_path / "a.safetensors"))
    models = [base.with_adapter(adapter(1), 0.1 * (at + 1)) for at in range(8)]
    for model in models:
        predicted(model)
    assert len(RESIDENCY.held()) <= residency.MOST_IDLE_TWINS + 1


def test_three_models_that_do_not_fit_together_take_turns_in_flat_memory(tmp_path: Path) -> None:
    """A budget of two models and a half; every load and every leaving is accounted, every picture the same."""
    models = [load_diffusion_model(written(tmp_path / f"{seed}.safetensors", seed)) for seed in range(3)]
    size = sum(p.nbytes for p in models[0].network.parameters())
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices(model="fp32", limit_bytes=int(2.5 * size))
    expected = [predicted(model) for model in models]
    loads, evictions = RESIDENCY.load_count, RESIDENCY.eviction_count
    for turn in range(60):
        at = (turn * 7 + turn // 5) % 3
        assert torch.equal(predicted(models[at]), expected[at])
        assert RESIDENCY.bytes_on(CPU) <= 2.5 * size
        there = len(RESIDENCY.held())
        assert (RESIDENCY.load_count - loads) - (RESIDENCY.eviction_count - evictions) == there - 2
    loaded = RESIDENCY.load_count - loads
    assert 20 < loaded < 60, "every other turn or so finds its model"


def test_a_network_that_somebody_still_looks_at_has_to_have_its_room_again(tmp_path: Path) -> None:
    """It was let go and is made from the tensors that are still there: on the books it is as large as any other."""
    models = [load_diffusion_model(written(tmp_path / f"{seed}.safetensors", seed)) for seed in range(3)]
    looked_at = models[0].network
    size = sum(parameter.nbytes for parameter in looked_at.parameters())
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices(model="fp32", limit_bytes=int(2.5 * size))
    for model in (models[1], models[2], models[0]):
        predicted(model)
        assert RESIDENCY.bytes_on(CPU) <= 2.5 * size


@pytest.mark.slow
def test_ten_thousand_uses_of_three_models_leave_memory_as_it_was(tmp_path: Path) -> None:
    models = [load_diffusion_model(written(tmp_path / f"{seed}.safetensors", seed)) for seed in range(3)]
    size = sum(p.nbytes for p in models[0].network.parameters())
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices(model="fp32", limit_bytes=int(2.5 * size))
    loads, evictions, early_kb = RESIDENCY.load_count, RESIDENCY.eviction_count, 0
    for turn in range(10_000):
        predicted(models[(turn * 7 + turn // 50) % 3])
        early_kb = resident_kb() if turn == 1000 else early_kb
    assert resident_kb() < early_kb + size // 1024
    there = len(RESIDENCY.held())
    assert (RESIDENCY.load_count - loads) - (RESIDENCY.eviction_count - evictions) == there


def resident_kb() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def test_memory_that_ran_out_makes_the_next_network_small_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    RESIDENCY.choices = MemoryChoices(model="fp32")
    model = load_diffusion_model(written(tmp_path / "a.safetensors"))
    expected, modes = predicted(model), [mode for _, mode in RESIDENCY.held()]
    for _ in range(2):
        if modes[-1] == "resident":
            RESIDENCY.relieve()
        else:
            RESIDENCY.free()
        assert torch.equal(predicted(model), expected)
        modes += [mode for _, mode in RESIDENCY.held()]
    assert modes == ["resident", "streamed", "resident"]


def test_a_float8_weight_dtype_rounds_the_matrices_of_blocks_and_keeps_them_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.safetensors")
    RESIDENCY.choices = MemoryChoices(model="fp32")
    small = load_diffusion_model(path, kept_as=torch.float8_e4m3fn)
    dense = predicted(small)  # below the least size there is nothing to keep small
    exact = load_diffusion_model(path).network.state_dict()
    for name, tensor in small.network.state_dict().items():
        is_rounded = name.startswith("joint_blocks.") and name.endswith(".weight") and tensor.ndim == 2
        expected = exact[name].to(torch.float8_e4m3fn).float() if is_rounded else exact[name]
        assert torch.equal(tensor, expected), name
    RESIDENCY.free()
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    monkeypatch.setattr(streamed, "STREAMED_FROM_BYTES", 4096)
    before = RESIDENCY.bytes_on(CPU)
    assert torch.equal(predicted(small), dense)
    assert [mode for _, mode in RESIDENCY.held()] == ["packed"]
    assert RESIDENCY.bytes_on(CPU) - before < 0.5 * sum(tensor.nbytes for tensor in exact.values())


def test_the_choice_of_float8_keeps_matrices_in_8_bits_with_a_scale_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """e4m3 has three bits behind the point: a rounding is off by a sixteenth of the value at most."""
    path = written(tmp_path / "a.safetensors")
    RESIDENCY.choices = MemoryChoices(model="fp32")
    exact, before = load_diffusion_model(path).network.state_dict(), predicted(load_diffusion_model(path))
    RESIDENCY.free()
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    monkeypatch.setattr(streamed, "STREAMED_FROM_BYTES", 4096)
    RESIDENCY.choices = MemoryChoices(model="fp8")
    model = load_diffusion_model(path)
    held = RESIDENCY.bytes_on(CPU)
    found = predicted(model)
    assert [mode for _, mode in RESIDENCY.held()] == ["packed"]
    assert RESIDENCY.bytes_on(CPU) - held < 0.5 * sum(tensor.nbytes for tensor in exact.values())
    assert 0 < (found - before).norm() <= 0.05 * before.norm()
    for name, stored in model.recipe.weights.items():
        if stored.combine is not None:
            values, original = stored.read(), exact[name]
            near = original.abs() > original.abs().max() * 2.0**-14  # below, e4m3 has fewer bits
            assert ((values - original).abs()[near] <= original.abs()[near] / 16 * 1.001).all(), name


def test_a_file_written_over_under_a_mapped_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    RESIDENCY.choices = MemoryChoices(model="fp32")
    path = written(tmp_path / "a.safetensors", dtype=torch.float32)
    model = load_diffusion_model(path)
    predicted(model)
    assert [mode for _, mode in RESIDENCY.held()] == ["mapped"]
    assert RESIDENCY.bytes_on(CPU) == 0
    expected = predicted(model)
    written(tmp_path / "b.safetensors", 1, torch.float32).rename(path)
    assert torch.equal(predicted(model), expected), "another file of that name changes nothing"
    assert not torch.equal(predicted(load_diffusion_model(path)), expected)
    model = load_diffusion_model(path)
    predicted(model)
    os.utime(path, ns=(1, 1))
    with pytest.raises(StaleFile, match="changed on disk since it was opened"):
        predicted(model)


def test_a_file_cut_short_under_a_mapped_network_is_named_before_its_pages_are_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page beyond the end would end the process (SIGBUS)."""
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    RESIDENCY.choices = MemoryChoices(model="fp32")
    path = written(tmp_path / "a.safetensors", dtype=torch.float32)
    model = load_diffusion_model(path)
    predicted(model)
    os.truncate(path, 4096)
    with pytest.raises(StaleFile, match="changed on disk since it was opened"):
        predicted(model)
    with pytest.raises(CorruptFile, match="a.safetensors"):
        load_diffusion_model(path)


def test_a_mapped_network_predicts_what_a_copied_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.safetensors", dtype=torch.bfloat16)
    RESIDENCY.choices = MemoryChoices(model="bf16")
    copied = predicted(load_diffusion_model(path))
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    assert torch.equal(predicted(load_diffusion_model(path)), copied)


def test_what_cannot_fit_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    path = written(tmp_path / "a.safetensors")
    RESIDENCY.choices = MemoryChoices(limit_bytes=1000)
    loads = RESIDENCY.load_count
    with pytest.raises(OutOfMemory, match=r"diffusion model takes .* GB on cpu, which has 1\.0 kB left.*the plan: "):
        load_diffusion_model(path)
    assert RESIDENCY.load_count == loads


def test_a_model_opened_again_builds_no_module_to_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.safetensors")
    load_diffusion_model(path)
    built: list[str] = []
    hollow = resident.hollow
    monkeypatch.setattr(resident, "hollow", lambda build: built.append("") or hollow(build))
    load_diffusion_model(path)
    assert built == []
    save_file(drawn_weights(MMDiTShape(3, 128, 64, 96, 12)), tmp_path / "deeper.safetensors")
    load_diffusion_model(tmp_path / "deeper.safetensors")
    assert len(built) == 1


def test_a_recipe_counts_its_table_once_and_is_not_walked_through(tmp_path: Path) -> None:
    model = load_diffusion_model(written(tmp_path / "a.safetensors"))
    patched = model.with_adapter(adapter(1), 0.5)
    one, both = footprint(model), footprint((model, patched))
    count = len(model.recipe.base)
    assert one.total_bytes > 300 * count
    assert both.total_bytes - one.total_bytes < 300 * count
    assert len(one.blocks) == 1, "a table is one thing"


def test_a_table_that_is_looked_up_where_it_lies_takes_no_room_while_streaming(tmp_path: Path) -> None:
    """Positions of 64 x 64 tokens are five times the largest matrix, and only rows of them are ever copied."""
    shape = MMDiTShape(1, 128, 64, 96, 64)
    save_file(drawn_weights(shape), tmp_path / "a.safetensors")
    part = load_diffusion_model(tmp_path / "a.safetensors").recipe.part()
    assert part.largest_bytes == 6 * 128 * 128 * 4  # a modulation
    assert part.dense_bytes > part.largest_bytes + 64 * 64 * 128 * 4


def test_encoders_and_model_of_a_checkpoint_are_separate_loads(tiny_checkpoint: Path) -> None:
    loads = RESIDENCY.load_count
    parts = load_checkpoint(tiny_checkpoint)
    assert parts.clip is not None
    parts.clip.encode("a red circle")
    assert RESIDENCY.load_count == loads + 3
    assert parts.vae is not None
    parts.vae.decode(torch.zeros(1, 16, 2, 2))
    assert RESIDENCY.load_count == loads + 4


def test_one_file_kept_in_two_precisions_makes_two_networks(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors")
    kept = (None, torch.float8_e4m3fn, torch.float8_e5m2)
    models = [load_diffusion_model(path, kept_as=dtype) for dtype in kept]
    first, second, third = (predicted(model) for model in models)  # all three are there at once
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert len({model.fingerprint for model in models}) == 3
    weight = models[0].network.joint_blocks[0].x_block.attn.qkv.weight
    rounded = models[1].network.joint_blocks[0].x_block.attn.qkv.weight
    assert torch.equal(rounded, weight.to(torch.float8_e4m3fn).to(rounded.dtype))


def test_a_shard_that_is_not_the_first_and_changes_makes_another_network(tmp_path: Path) -> None:
    tensors, index = drawn_weights(SHAPE), tmp_path / "m.safetensors.index.json"
    halves = [list(tensors)[::2], list(tensors)[1::2]]
    shards = [f"m-0000{at}-of-00002.safetensors" for at in (1, 2)]
    index.write_text(json.dumps({"weight_map": {n: shards[at] for at, half in enumerate(halves) for n in half}}))
    for shard, half in zip(shards, halves, strict=True):
        save_file({name: tensors[name] for name in half}, tmp_path / shard)
    before = load_diffusion_model(index)
    first = predicted(before)
    changed = {name: tensors[name] + 0.01 for name in halves[1]}
    save_file(changed, tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / shards[1])
    after = load_diffusion_model(index)
    assert not torch.equal(predicted(after), first)
    assert torch.equal(after.network.state_dict()[halves[1][0]].float(), changed[halves[1][0]])
    assert torch.equal(predicted(before), first)
