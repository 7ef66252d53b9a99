"""A workflow stored on the server of this home, by its name where a command expects a file."""

from pathlib import Path

from sigmagraph.engine.errors import BadValue, MissingFile
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.library import Library

__all__ = ["stored_workflow"]

OWNERS = {LOCAL: "default"}  # as the server names the folder of its only user


def stored_workflow(home: Path, name: Path) -> Workflow | None:
    """The newest version of that name; None where there is a file of that name, or nothing stored."""
    if name.exists():
        return None
    try:
        stored = Library(home / "user" / OWNERS[LOCAL] / "stored").read(str(name))
    except (BadValue, MissingFile):
        return None
    return Workflow(parse_workflow(dict(stored.prompt)).nodes, stored.document)
