"""schemathesis over the OpenAPI document: nothing it makes up gives a 500, every answer is as described."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.server.endpoints.conftest import LARGE, SMALL
from tests.server.endpoints.threaded import Running, running

# made-up headers are letters and digits only, which no address is; a request that was cancelled is a 422 by this
# protocol, also when it is asked for with a good id; the other verbs of /workflows/SLUG are the stored
# workflows', which the document does not describe (test_statuses.py has every verb of every path)
RULES = """
[parameters]
"header.X-Webhook-Url" = "https://example.com/done"

[[operations]]
include-method-regex = "GET|HEAD"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 405, 409, 422, "5xx"]

[[operations]]
include-path = "/outputs/{{id}}/{{name}}"

[operations.parameters]
"path.id" = "{id}"
"path.name" = "{name}"
"query.expires" = {expires}
"query.signature" = "{signature}"
"""


PUBLISHED = r"^/(v1|v2|outputs|openapi\.json|workflows/(request|demo|stable-diffusion[^/]*$))"
"""The paths whose answers are described to the letter, with those of `/api/v2`; of the others the document knows path,
verb and body."""
AS_DESCRIBED = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def a_picture(server: Running) -> dict[str, str]:
    """The parts of the URL of a picture that is there."""
    headers = {"x-api-key": server.key, "Content-Type": "application/json"}
    with urlopen(Request(server.url + LARGE, json.dumps(dict(SMALL)).encode(), headers)) as response:
        url = urlsplit(json.load(response)["image"])
    _, _, job_id, name = url.path.split("/")
    return {"id": job_id, "name": name, **{field: values[0] for field, values in parse_qs(url.query).items()}}


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_generated_request_is_answered_as_the_document_says(seed: int, tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        (tmp_path / "schemathesis.toml").write_text(RULES.format(**a_picture(server)), "utf-8")
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        command += [
            "-H",
            f"x-api-key: {server.key}",
            "--checks",
            "all",
            "--exclude-checks",
            "unsupported_method",
            "--max-examples",
            "60",
            "--seed",
            str(seed),
        ]
        command += ["--include-path-regex", PUBLISHED]
        command += ["--request-timeout", "30", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", [1, 2])
def test_no_generated_request_to_any_route_makes_the_server_fail(seed: int, tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        command += ["-H", f"Authorization: Bearer {server.key}", "--checks", "not_a_server_error"]
        command += ["--exclude-path-regex", PUBLISHED + "|^/(ws|ready|login|logout|jobs/.*/events|.*/events)$"]
        command += ["--max-examples", "30", "--seed", str(seed), "--request-timeout", "30", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", [1, 2])
def test_every_generated_request_of_the_comfy_api_is_answered_as_described(seed: int, tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        command += ["-H", f"Authorization: Bearer {server.key}", "--checks", AS_DESCRIBED]
        command += ["--include-path-regex", "^/api/v2/(health|jobs|assets)", "--exclude-path-regex", ".*/events$"]
        command += ["--max-examples", "60", "--seed", str(seed), "--request-timeout", "30", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
