"""Products of float8 weights as they are stored: beside the same arithmetic in float64, and through a whole model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.compiled import CompiledBlocks
from sigmagraph.engine.models.files.fp8 import scaled_bytes
from sigmagraph.engine.models.memory import plan as plans
from sigmagraph.engine.models.memory import recipe as recipes
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.float8 import LARGEST, Float8Linear, multiplies_float8
from sigmagraph.engine.models.memory.residency import RESIDENCY

E4M3 = torch.float8_e4m3fn
SHAPE = MMDiTShape(4, 128, 64, 96, 24)


@pytest.fixture(autouse=True)
def own_choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plans, "SMALL_BYTES", 0)
    monkeypatch.setattr("sigmagraph.engine.models.memory.streamed.STREAMED_FROM_BYTES", 0)
    before = RESIDENCY.choices
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


def rounded(values: Tensor, scale: Tensor) -> Tensor:
    """What float8 keeps of values, in float64."""
    return (values.float() / scale).clamp(-LARGEST, LARGEST).to(E4M3).double() * scale.double()


@pytest.mark.parametrize(
    ("by_row", "outputs_have_scales"),
    [(True, True), (True, False), (False, False)],
    ids=["by row, a scale for each output", "by row", "by tensor"],
)
def test_a_layer_multiplies_what_float8_keeps(by_row: bool, outputs_have_scales: bool) -> None:
    torch.manual_seed(0)
    dense, bias, tokens = (
        torch.randn(48, 32),
        torch.randn(48),
        torch.randn(2, 5, 32) * torch.tensor([1.0, 30.0])[:, None, None],
    )
    scale = (dense.abs().amax(dim=1, keepdim=True) if outputs_have_scales else dense.abs().amax()) / LARGEST
    layer = Float8Linear((dense / scale).to(E4M3), scale, bias, by_row=by_row)
    inputs = (tokens.abs().amax(dim=-1, keepdim=True) if by_row else tokens.abs().amax()) / LARGEST
    expected = rounded(tokens, inputs) @ rounded(dense, scale).t() + bias.double()
    torch.testing.assert_close(layer(tokens).double(), expected, rtol=1e-5, atol=1e-4)
    exact = tokens.double() @ dense.double().t() + bias.double()
    assert 0.005 < (layer(tokens) - exact).norm() / exact.norm() < 0.045


def test_a_row_of_zeros_is_the_bias() -> None:
    layer = Float8Linear(torch.ones(16, 16).to(E4M3), torch.ones(()), torch.arange(16.0), by_row=True)
    assert torch.equal(layer(torch.zeros(1, 3, 16)), torch.arange(16.0).expand(1, 3, 16))


@pytest.fixture(params=["scaled", "plain"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Matrices of blocks in float8, with a scale beside each or without."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2, dtype=E4M3)} if request.param == "scaled" else {}
    for name, tensor in MMDiT(SHAPE).state_dict().items():
        drawn = torch.randn(tensor.shape) * 0.05
        if name.startswith("joint_blocks") and drawn.ndim == 2:
            scale = drawn.abs().amax() / LARGEST if request.param == "scaled" else torch.ones(())
            tensors[name] = (drawn / scale).to(E4M3)
            if request.param == "scaled":
                tensors[name.removesuffix("weight") + "scale_weight"] = scale
        else:
            tensors[name] = drawn.to(torch.bfloat16)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def opened(file: Path, precision: str, compile_: str = "off") -> Model:
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices.parse(precision, "auto", "cpu", compile_)
    return load_diffusion_model(file)


def predicted(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 16, 16, 16, generator=generator)
    entries = [
        Conditioning(torch.randn(1, 9, 96, generator=generator), torch.randn(1, 64, generator=generator)) for _ in "ab"
    ]
    return torch.cat(model.predict(x, 0.6, entries))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU for a card that multiplies float8 and computes in bfloat16."""
    monkeypatch.setattr(recipes, "multiplies_float8", lambda _: True)
    monkeypatch.setattr(recipes, "tabulates", lambda _: True)
    monkeypatch.setattr("sigmagraph.engine.models.memory.choices.compute_dtype", lambda *_: torch.bfloat16)


def test_a_card_with_float8_multiplies_stored_bytes_and_says_how_far_off_it_is(card: None, file: Path) -> None:
    exact = predicted(opened(file, "bf16"))
    model = opened(file, "auto")
    found = predicted(model)
    assert 1e-4 < (found - exact).norm() / exact.norm() < 0.03
    layers = [module for module in model.network.modules() if isinstance(module, Float8Linear)]
    assert len(layers) == 4 * 8 - 3, "all matrices of blocks, those of the last context but q, k and v are not there"
    assert all(layer.weight.dtype == E4M3 for layer in layers)
    assert [mode for _, mode in RESIDENCY.held()] == ["packed"]
    assert torch.equal(predicted(model), found)


def test_without_such_a_card_or_at_a_chosen_precision_weights_are_multiplied_out(file: Path) -> None:
    model = opened(file, "auto")
    predicted(model)
    assert not any(isinstance(module, Float8Linear) for module in model.network.modules())
    assert not multiplies_float8(torch.device("cpu"))


@pytest.mark.parametrize("file", ["scaled"], indirect=True)
def test_float8_layers_are_compiled_with_their_blocks(card: None, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = predicted(opened(file, "auto"))
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks("eager"))
    assert torch.equal(predicted(opened(file, "auto", "on")), expected)
    assert RESIDENCY.compiled.stats() == {"graphs": 2, "recompiles": 0, "failure": ""}


@pytest.mark.parametrize(
    ("kind", "capability", "able"), [("cuda", (8, 9), True), ("cuda", (8, 6), False), ("mps", (9, 0), False)]
)
def test_which_devices_multiply_float8(
    monkeypatch: pytest.MonkeyPatch, kind: str, capability: tuple[int, int], able: bool
) -> None:
    monkeypatch.setattr("sigmagraph.engine.models.memory.float8.capability", lambda _: capability)
    assert multiplies_float8(torch.device(kind)) == able


def test_only_float8_of_that_form_is_taken_as_bytes(file: Path) -> None:
    weights = load_diffusion_model(file).recipe.weights
    found = {name for name, weight in weights.items() if scaled_bytes(weight) is not None}
    assert found == {
        name for name, tensor in MMDiT(SHAPE).state_dict().items() if name.startswith("joint") and tensor.ndim == 2
    }
