"""The page of rules names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_the_page_of_rules_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/rules.md").read_text(encoding="utf-8")))
    known = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 100
    assert named - known == set()
