"""`constraints.txt` says a version for everything the project asks for, and one that it allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CHECKED = ("editor", "plots", "docs", "test", "oracles", "postgres", "cluster")


def test_every_requirement_has_a_version_that_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = [text for extra in CHECKED for text in project["optional-dependencies"][extra]]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name}: put the version CI installs into constraints.txt"
        assert version in requirement.specifier


def test_the_licence_of_everything_it_runs_on_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs/hardening.md").read_text()
    told = page[page.index("## Licences") :]
    extras = [
        text
        for extra in ("editor", "plots", "docs", "postgres", "cluster", "upscale")
        for text in project["optional-dependencies"][extra]
    ]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        assert requirement.name in told, f"{requirement.name}: put its licence into docs/hardening.md"
