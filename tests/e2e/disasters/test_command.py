"""kill -9 in the middle of a command that samples: started again it goes on, to the same picture."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.disasters.mixed import undisturbed
from tests.e2e.disasters.processes import COMMAND, ENVIRONMENT, ROOT, wait_for

pytestmark = pytest.mark.slow


def test_a_killed_command_goes_on_where_it_was(home: Path, txt2img: Callable[..., dict[str, Any]]) -> None:
    graph = txt2img(steps=200, sampler_name="dpmpp_2m")
    path = home / "workflow.json"
    path.write_text(json.dumps(graph))
    arguments = [*COMMAND, "run", str(path), "--home", str(home), "--output", str(home / "out")]
    running = subprocess.Popen(arguments, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: size_of_unfinished(home) > 30_000, 120)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not list((home / "out").glob("*.png"))
    assert size_of_unfinished(home) > 0
    subprocess.run(arguments, env=ENVIRONMENT, cwd=ROOT, check=True, capture_output=True)
    [made] = (home / "out").glob("*.png")
    assert [made.read_bytes()] == undisturbed(home, graph)
    assert size_of_unfinished(home) == 0


def size_of_unfinished(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "temp").rglob("*.part"))
