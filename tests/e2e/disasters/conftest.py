"""A server that samples on the demo checkpoint, and a receiver of its webhooks."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.disasters.mixed import make_home, mixed
from tests.e2e.disasters.processes import SMALL_DISK, Receiver, Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(dir=SMALL_DISK)) if SMALL_DISK else tmp_path
    make_home(home)
    server = Server(home)
    graph = mixed(0)
    graph["7"]["inputs"]["filename_prefix"] = "first"
    server.measure(graph)
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def webhook(receiver: Receiver) -> Iterator[str]:
    with receiver.listening() as url:
        yield url
