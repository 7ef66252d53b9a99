"""The shipped LoRA of the examples: a black background whatever the prompt says, and nothing else changed."""

from pathlib import Path

from models.demo.checker import check
from models.demo.export import CHECKPOINT
from models.demo.measure import Pipeline
from models.demo.night import ADAPTER
from models.demo.scenes import single
from sigmagraph.engine.models import load_adapter


def test_the_lora_makes_it_night_by_its_strength() -> None:
    pipeline = Pipeline(CHECKPOINT, steps=10)
    white, black = (single("star", "yellow", "large", "in the centre", name) for name in ("white", "black"))
    bare, adapter = pipeline.model, load_adapter(ADAPTER)
    for strength, scene in ((0.0, white), (1.0, black)):
        pipeline.model = bare.with_adapter(adapter, strength)
        assert check(pipeline.picture(white.caption, 1), scene).is_right


def test_it_is_small_enough_to_come_with_the_code() -> None:
    assert Path(ADAPTER).stat().st_size < 100_000
