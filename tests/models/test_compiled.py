"""Compiled blocks: the numbers of blocks as they are, one graph for each kind of block, nothing stays behind."""

import gc
import logging
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sigmagraph.engine.models import Adapter, Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.arch.mmdit import call_block
from sigmagraph.engine.models.compiled import CompiledBlocks
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.nodes import NODES
from tests.weights import drawn_weights

SHAPE = MMDiTShape(4, 128, 64, 96, 40)
SIZES = ((16, 16), (32, 16), (16, 34), (30, 30), (24, 40), (48, 16), (8, 10))
LENGTHS = (20, 33, 77, 154, 21)


@pytest.fixture(autouse=True)
def own_choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = RESIDENCY.choices
    RESIDENCY.free()
    torch._dynamo.reset()
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()
    torch._dynamo.reset()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "model.safetensors", SHAPE)


def written(path: Path, shape: MMDiTShape) -> Path:
    save_file(drawn_weights(shape), path)
    return path


def compiled(monkeypatch: pytest.MonkeyPatch, path: Path, backend: str, memory: str = "resident") -> Model:
    """The model with its blocks compiled; what the counters say is in `RESIDENCY.compiled`."""
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks(backend))
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices.parse("fp32", memory, "cpu", "on")
    return load_diffusion_model(path)


def predicted(model: Model, rows: int = 16, columns: int = 16, tokens: int = 20, sides: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 16, rows, columns, generator=generator)
    entries = [
        Conditioning(torch.randn(1, tokens, 96, generator=generator), torch.randn(1, 64, generator=generator))
        for _ in range(sides)
    ]
    return torch.cat(model.predict(x, 0.6, entries))


def test_two_graphs_serve_every_size_text_and_adapter(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu", "off")
    plain = load_diffusion_model(file)
    asked = [(*size, 20) for size in SIZES] + [(16, 16, length) for length in LENGTHS]
    expected = [predicted(plain, *question) for question in asked]
    model = compiled(monkeypatch, file, "aot_eager")
    with torch.inference_mode():  # as in a worker; the others are made and asked outside of it
        assert torch.allclose(predicted(model, *asked[0]), expected[0], rtol=0, atol=1e-6)
    assert RESIDENCY.compiled.stats() == {"graphs": 2, "recompiles": 0, "failure": ""}
    for question, there in zip(asked, expected, strict=True):
        assert torch.allclose(predicted(model, *question), there, rtol=0, atol=1e-6)
    base = "diffusion_model.joint_blocks.1.x_block.mlp.fc1"
    for strength in (0.5, 1.0):
        up, down = torch.randn(512, 4), torch.randn(4, 128)
        twin = model.with_adapter(Adapter(Path("a.safetensors"), {base: {"up": up, "down": down}}), strength)
        assert not torch.equal(predicted(twin), expected[0])
    predicted(model.with_skipped_layers([1]))
    assert RESIDENCY.compiled.stats() == {"graphs": 2, "recompiles": 0, "failure": ""}


def test_as_many_tokens_as_channels_are_no_size_of_their_own(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    model = compiled(monkeypatch, file, "eager")
    for rows, columns in ((16, 32), (16, 16), (24, 40)):  # 128 tokens first, as the network is wide
        predicted(model, rows, columns)
    assert RESIDENCY.compiled.stats() == {"graphs": 2, "recompiles": 0, "failure": ""}


def test_a_block_is_one_graph_without_a_break() -> None:
    block = MMDiT(SHAPE).joint_blocks[0]
    whole = torch.compile(call_block, dynamic=True, backend="eager", fullgraph=True)  # raises at a break
    given = torch.randn(2, 12, 128), torch.randn(2, 7, 128), torch.randn(2, 128)
    with torch.inference_mode():
        assert torch.equal(whole(block, *given)[0], block(*given)[0])


@pytest.mark.slow
def test_a_batch_of_one_and_dual_attention_have_graphs_of_their_own_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shape = MMDiTShape(4, 128, 64, 96, 40, dual_attention_blocks=frozenset({0, 1}))
    model = compiled(monkeypatch, written(tmp_path / "dual.safetensors", shape), "eager")
    for _ in range(2):
        for sides in (2, 1, 3):
            predicted(model, sides=sides)
    assert RESIDENCY.compiled.stats() == {"graphs": 6, "recompiles": 0, "failure": ""}


def test_a_network_that_leaves_is_gone_and_its_graphs_serve_the_next(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    model = compiled(monkeypatch, file, "eager")
    predicted(model)
    weight = weakref.ref(model.network.joint_blocks[1].x_block.mlp.fc1.weight)
    gc.disable()
    try:
        RESIDENCY.free()
        assert weight() is None, "held by the compiled function"
    finally:
        gc.enable()
    predicted(model)
    assert RESIDENCY.compiled.graphs == 2


def test_streamed_blocks_and_those_of_a_cpu_are_not_compiled(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    predicted(compiled(monkeypatch, file, "eager", "stream"))
    assert RESIDENCY.compiled.graphs == 0
    RESIDENCY.choices = MemoryChoices.parse("fp32")
    cpu, card = torch.device("cpu"), torch.device("cuda", 0)
    assert [RESIDENCY.compiles(cpu), RESIDENCY.compiles(card)] == [False, False], "one run alone"
    monkeypatch.setattr(RESIDENCY, "keeps_unknown", True)
    assert [RESIDENCY.compiles(cpu), RESIDENCY.compiles(card)] == [False, True], "a process that stays"
    assert not RESIDENCY.compiles(card, "streamed")


def test_a_choice_made_after_a_model_was_used_counts_from_its_next_use(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks("eager"))
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu", "off")
    model, loads = load_diffusion_model(file), RESIDENCY.load_count
    with torch.inference_mode():  # as nodes run
        expected = predicted(model)
        for choice, graphs, made in (("off", 0, 1), ("on", 2, 2), ("on", 2, 2), ("off", 2, 3), ("on", 2, 4)):
            RESIDENCY.choices = RESIDENCY.choices.changed(None, None, None, choice)
            found = predicted(model)
            assert (found - expected).norm() <= 1e-5 * expected.norm()
            assert torch.equal(found, expected) or choice == "on"
            assert (RESIDENCY.compiled.graphs, RESIDENCY.load_count - loads) == (graphs, made), choice
    assert RESIDENCY.compiled.recompiles == 0
    weights = [model.network]
    with model.recipe.use() as network:
        RESIDENCY.choices = RESIDENCY.choices.changed(None, None, None, "off")
        assert model.network is network is weights[0], "one that computes stays"
    assert model.network is not weights[0]


def test_where_compiling_fails_blocks_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu", "off")
    expected = predicted(load_diffusion_model(file))
    model = compiled(monkeypatch, file, "eager")

    def broken(*_: object) -> object:
        raise RuntimeError("no C compiler here")

    monkeypatch.setattr("torch._dynamo.lookup_backend", lambda _: broken)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(predicted(model), expected)
        assert torch.equal(predicted(model), expected)
    assert len([message for message in caplog.messages if "no C compiler here" in message]) == 1
    assert "no C compiler here" in str(RESIDENCY.compiled.stats()["failure"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its own functions
@pytest.mark.parametrize(("precision", "error"), [("fp32", 2e-5), ("bf16", 2e-2)])
def test_code_that_inductor_writes_predicts_the_same(
    monkeypatch: pytest.MonkeyPatch, file: Path, precision: str, error: float
) -> None:
    RESIDENCY.choices = MemoryChoices.parse(precision, "resident", "cpu", "off")
    expected = [predicted(load_diffusion_model(file), *size) for size in SIZES[:3]]
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks())
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices.parse(precision, "resident", "cpu", "on")
    model = load_diffusion_model(file)
    for size, there in zip(SIZES, expected, strict=False):
        assert (predicted(model, *size) - there).norm() <= error * there.norm()
    assert RESIDENCY.compiled.stats() == {"graphs": 2, "recompiles": 0, "failure": ""}


def test_a_model_may_ask_for_compiled_blocks_where_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks("eager"))
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu", "off")
    plain = load_diffusion_model(file)
    asking: Model = NODES["TorchCompileModel"](model=plain, backend="inductor")
    expected = predicted(plain)
    assert RESIDENCY.compiled.graphs == 0
    assert torch.allclose(predicted(asking), expected, atol=1e-5)
    assert RESIDENCY.compiled.graphs == 2
    assert torch.equal(predicted(plain), expected)
