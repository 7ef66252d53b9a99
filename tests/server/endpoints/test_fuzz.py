"""schemathesis over the OpenAPI document: nothing it makes up gives a 500, every answer is as described."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.endpoints.threaded import running


@pytest.mark.fuzz
def test_every_generated_request_is_answered_as_the_document_says(tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        command += ["-H", f"x-api-key: {server.key}", "--checks", "all", "--max-examples", "20", "--seed", "1"]
        command += ["--exclude-path-regex", "/events$", "--request-timeout", "30", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
