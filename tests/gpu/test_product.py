"""The product's ways on a card: compiled, float8, tables, streamed by belt. `pytest -m gpu tests/gpu`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.captured import CapturedForwards
from sigmagraph.engine.models.compiled import CompiledBlocks
from sigmagraph.engine.models.memory import plan, streamed
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.float8 import LARGEST, Float8Linear
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.sampling import ComfyNoise, Sampling, find_schedule, run_sigmas
from tests.weights import drawn_weights

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # torch's own, in inductor
SHAPE = MMDiTShape(8, 256, 64, 96, 40)  # two kinds of blocks: compiling one takes ten seconds
E4M3 = torch.float8_e4m3fn


@pytest.fixture(autouse=True)
def own_choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks of a test are small; they are placed as large ones are."""
    monkeypatch.setattr(plan, "SMALL_BYTES", 0)
    monkeypatch.setattr(plan, "WORKING_BYTES", dict.fromkeys(plan.WORKING_BYTES, 0))
    monkeypatch.setattr(plan, "TABLE_BYTES", 0)
    monkeypatch.setattr(streamed, "STREAMED_FROM_BYTES", 4096)
    before = RESIDENCY.choices
    RESIDENCY.free()
    torch._dynamo.reset()
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(
        {name: tensor.to(torch.bfloat16) for name, tensor in drawn_weights(SHAPE).items()},
        tmp_path / "model.safetensors",
    )
    return tmp_path / "model.safetensors"


def opened(file: Path, *, precision: str = "bf16", memory: str = "auto", compile_: str = "off") -> Model:
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices.parse(precision, memory, "cuda", compile_)
    return load_diffusion_model(file)


def text(seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, 20, 96, generator=generator), torch.randn(1, 64, generator=generator))


def sampled(model: Model, side: int = 32) -> Tensor:
    """Five guided steps, as a node takes them."""
    sigmas = run_sigmas(find_schedule("normal"), model.parameterisation.levels, 5, 1.0, False)
    model.expect(sigmas)
    latent = torch.zeros(1, 16, side, side, device=model.placement.device)
    denoiser = model.guided(text(1), text(2), 4.0)
    return Sampling(denoiser, latent, sigmas, model.parameterisation, "euler", noise=ComfyNoise(3)).run().cpu()


def off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_blocks_by_belt_compute_what_resident_ones_do(cuda: torch.device, file: Path) -> None:
    resident = sampled(opened(file, memory="resident"))
    model = opened(file, memory="stream")
    for _ in range(3):
        assert torch.equal(sampled(model), resident)
    assert [mode for _, mode in RESIDENCY.held()] == ["streamed"]


def test_a_belt_survives_a_run_that_is_broken_off_and_other_streams(cuda: torch.device, file: Path) -> None:
    resident = sampled(opened(file, memory="resident"))
    model = opened(file, memory="stream")
    x, side = torch.ones(1, 16, 32, 32, device=cuda), torch.cuda.Stream(cuda)
    expected = model.predict(x, 0.7, [text(1)])[0].clone()
    with model.recipe.use() as network:
        network.joint_blocks[3].x_block.mlp.fc2.register_forward_pre_hook(_fails_once())
    with pytest.raises(RuntimeError, match="cancelled"):  # in the middle of the blocks
        model.predict(x, 0.7, [text(1)])
    side.wait_stream(torch.cuda.current_stream(cuda))
    with torch.cuda.stream(side):
        found = model.predict(x, 0.7, [text(1)])[0]
    torch.cuda.current_stream(cuda).wait_stream(side)
    assert torch.equal(found, expected)
    assert torch.equal(sampled(model), resident)


def _fails_once() -> Callable[..., None]:
    left = [True]

    def fail(*_: object) -> None:
        if left and left.pop():
            raise RuntimeError("a node was cancelled")

    return fail


def test_a_limit_in_bytes_is_honoured(cuda: torch.device, file: Path) -> None:
    whole = sum(weight.stored_bytes for weight in opened(file).recipe.weights.values())
    model = opened(file, memory=f"{int(whole * 0.75)}B")
    part = model.recipe.part()
    placed = RESIDENCY.plan([model.recipe]).placed[0]
    assert placed.leaves
    assert placed.bytes_ <= 0.75 * whole
    torch.cuda.synchronize(cuda)
    torch.cuda.reset_peak_memory_stats(cuda)
    before = torch.cuda.memory_allocated(cuda)
    with model.recipe.use():
        took = torch.cuda.max_memory_allocated(cuda) - before
    assert took <= placed.bytes_ + part.largest_bytes + 2**20
    assert torch.equal(sampled(model), sampled(opened(file, memory="resident")))


def test_compiled_blocks_predict_the_same_and_are_made_once(
    cuda: torch.device, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {side: sampled(opened(file), side) for side in (32, 24)}
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks())
    model = opened(file, compile_="on")
    for side in (32, 24, 32, 16, 40):
        found = sampled(model, side)
        assert off(found, plain.get(side, found)) <= 0.03
    assert RESIDENCY.compiled.stats() == {"graphs": 2, "recompiles": 0, "failure": ""}


@pytest.mark.parametrize(("precision", "compile_"), [("bf16", "off"), ("bf16", "on"), ("fp8", "off")])
def test_small_forwards_are_replayed_and_give_the_same(
    cuda: torch.device, file: Path, precision: str, compile_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks())
    model = opened(file, precision=precision, compile_=compile_)
    captured = model.network.captured
    assert isinstance(captured, CapturedForwards)
    found = [sampled(model) for _ in range(3)]
    assert (captured.replays, captured.failure) == (13, "")
    model.network.captured = None
    for result in found:
        assert torch.equal(result, sampled(model))


@pytest.mark.parametrize("by_row", [True, False], ids=["by row", "by tensor"])
def test_a_float8_layer_multiplies_what_float8_keeps(cuda: torch.device, by_row: bool) -> None:
    torch.manual_seed(0)
    dense, bias = torch.randn(96, 64), torch.randn(96)
    tokens = torch.randn(2, 16, 64).to(torch.bfloat16)
    scale = dense.abs().amax() / LARGEST
    small = (dense / scale).to(E4M3)
    layer = Float8Linear(small.to(cuda), scale.to(cuda), bias.to(cuda, torch.bfloat16), by_row=by_row)
    inputs = (tokens.abs().amax(dim=-1, keepdim=True) if by_row else tokens.abs().amax()).float() / LARGEST
    kept = (tokens / inputs.to(torch.bfloat16)).clamp(-LARGEST, LARGEST).to(E4M3).double() * inputs
    expected = kept @ (small.double() * scale).t() + bias.to(torch.bfloat16).double()
    assert off(layer(tokens.to(cuda)).cpu().double(), expected) <= 5e-3


def test_float8_products_are_taken_where_the_card_has_them_and_how_far_off_they_are(
    cuda: torch.device, file: Path
) -> None:
    exact = sampled(opened(file))
    model = opened(file, precision="fp8")
    found = sampled(model)
    is_able = torch.cuda.get_device_capability(cuda) >= (8, 9)
    assert any(isinstance(module, Float8Linear) for module in model.network.modules()) == is_able
    assert 1e-4 < off(found, exact) < 0.08
    assert torch.equal(sampled(model), found)


def test_after_the_first_step_the_host_never_waits_with_tables(cuda: torch.device, file: Path) -> None:
    model = opened(file)
    sampled(model)
    sigmas = run_sigmas(find_schedule("normal"), model.parameterisation.levels, 5, 1.0, False)
    denoiser = model.guided(text(1), text(2), 4.0)
    latent = torch.zeros(1, 16, 32, 32, device=cuda)
    run = Sampling(denoiser, latent, sigmas, model.parameterisation, "euler", noise=ComfyNoise(3))
    try:
        run.run(on_tick=lambda _: torch.cuda.set_sync_debug_mode("error"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
