"""The example of docs/models.md runs as it is written, on a checkpoint with random weights."""

import re
from pathlib import Path

from tests.tiny import write_checkpoint

GUIDE = Path(__file__).parents[2] / "docs" / "models.md"
DEMO = "models/checkpoints/sigmagraph-demo.safetensors"


def test_the_example_of_the_guide_makes_an_image(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert DEMO in example
    names: dict[str, object] = {}
    exec(example.replace(DEMO, str(write_checkpoint(tmp_path / "tiny.safetensors"))), names)
    image = names["image"]
    assert image.shape == (1, 128, 128, 3)  # type: ignore[attr-defined]
    assert 0.0 <= image.min() < image.max() <= 1.0  # type: ignore[attr-defined]
