"""What may be chosen, what auto makes of it, and refusals that name what there is."""

import pytest
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.memory import device as devices
from sigmagraph.engine.models.memory.choices import MemoryChoices, parse_memory, parse_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bf16", {"model": "bf16", "vae": "bf16"}),
        ("fp8", {"model": "fp8"}),
        ("text=bf16, model=fp8,vae=fp32", {"text": "bf16", "model": "fp8", "vae": "fp32"}),
        ("fp16,vae=fp32", {"model": "fp16", "vae": "fp32"}),
        ("vae=fp32,fp16", {"model": "fp16", "vae": "fp32"}),
        ("fp8,vae=bf16", {"model": "fp8", "vae": "bf16"}),
    ],
)
def test_a_precision_is_for_the_model_or_for_the_part_it_names(text: str, expected: dict[str, str]) -> None:
    assert parse_precision(text) == expected


@pytest.mark.parametrize("text", ["model=fp8,model=bf16", "bf16,fp16", "fp8,bf16", "text=bf16, text=bf16"])
def test_a_part_that_is_told_twice_is_an_error(text: str) -> None:
    with pytest.raises(BadValue, match="one precision for (model|text), not two"):
        parse_precision(text)


@pytest.mark.parametrize("text", ["int4", "text=fp8", "vae=fp8", "unet=bf16", "model=", ""])
def test_a_precision_that_is_none_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(BadValue, match="auto, fp32, bf16, fp16 or fp8"):
        parse_precision(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", ("auto", None)),
        ("stream", ("stream", None)),
        ("12GB", ("auto", 12_000_000_000)),
        ("1.5GiB", ("auto", 1536 * 2**20)),
        ("4096", ("auto", 4096)),
        ("8 g", ("auto", 8_000_000_000)),
    ],
)
def test_memory_is_a_way_or_a_size(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["all", "0", "-1", "12XB", "", "0.4", "nan"])
def test_memory_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="auto, resident, stream"):
        parse_memory(text)


@pytest.mark.parametrize("name", ["cpu+", "cpu+cpu"])
def test_half_a_pair_of_devices_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match=r"two.* of one kind, such as cuda:0\+cuda:1"):
        MemoryChoices.parse(device=name)


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(BadValue, match=r"--device.*'cuda:7'.*auto or one of .*cpu"):
        MemoryChoices.parse(device="cuda:7")


@pytest.mark.parametrize(
    ("card", "stored", "expected"),
    [
        ((9, 0), torch.bfloat16, torch.bfloat16),
        ((7, 5), torch.bfloat16, torch.float16),
        ((7, 5), torch.float8_e4m3fn, torch.float16),
        ((6, 1), torch.float16, torch.float32),
        ((8, 6), torch.float16, torch.float16),
    ],
)
def test_a_card_computes_in_what_its_hardware_multiplies(
    monkeypatch: pytest.MonkeyPatch, card: tuple[int, int], stored: torch.dtype, expected: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "capability", lambda device: card)
    assert devices.compute_dtype(torch.device("cuda", 0), stored) == expected


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_processor_with_bfloat16_computes_bfloat16_files_in_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool
) -> None:
    """Only the diffusion model: encoders and pictures stay float32 until somebody chooses otherwise."""
    monkeypatch.setattr(devices, "_has_bf16_processor", lambda: has_bf16)
    auto = MemoryChoices()
    expected = torch.bfloat16 if has_bf16 else torch.float32
    assert auto.placement("model", torch.bfloat16, CPU).dtype == expected
    for kind, stored in (("model", torch.float16), ("vae", torch.bfloat16), ("text", torch.bfloat16)):
        assert auto.placement(kind, stored, CPU).dtype == torch.float32


def test_a_choice_wins_over_what_is_stored() -> None:
    chosen = MemoryChoices.parse("model=bf16,text=fp16,vae=bf16", device="cpu")
    found = [chosen.placement(kind, torch.float32).dtype for kind in ("model", "text", "vae")]
    assert found == [torch.bfloat16, torch.float16, torch.bfloat16]
    assert chosen.named == "text=fp16, model=bf16, vae=bf16"
