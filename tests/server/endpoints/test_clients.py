"""Other people's programs, unmodified but for host and key: the hosted API's own SDK and examples."""

import base64
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.server.endpoints.threaded import Running, running

pytestmark = pytest.mark.clients
LARGE = "stable-diffusion-3.5-large-txt2img"
TURBO = "stable-diffusion-3.5-turbo-txt2img"
DATA = Path(__file__).resolve().parents[2] / "data" / "server" / "endpoints"
CALL = {"prompt": "a lighthouse", "sampler": "euler", "scheduler": "sgm_uniform", "width": 64, "height": 64}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture
def sdk(server: Running) -> Iterator[Any]:
    """The SDK on this server; it never closes its connections itself."""
    segmind = importlib.import_module("segmind")
    client = segmind.SegmindClient(api_key=server.key, base_url=f"{server.url}/v1")
    with client._client:
        yield client


def ported(name: str, server: Running) -> str:
    """A documented example with this server's address and key."""
    text = (DATA / name).read_text("utf-8").replace("https://api.segmind.com", server.url)
    return re.sub(r"YOUR[_ ]API[_-]KEY", server.key, text)


def test_the_python_example_prints_its_json(server: Running) -> None:
    words = "false = False\n"  # the page writes JSON's word, which Python does not know
    example = words + ported("large_requests.py.txt", server)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    assert '"image": "http://' in done.stdout
    assert '"seed": 98552302' in done.stdout


def test_the_javascript_example_gets_its_image(server: Running, tmp_path: Path) -> None:
    script = tmp_path / "example.js"
    script.write_text(ported("turbo_axios.js.txt", server), "utf-8")
    subprocess.run(["npm", "install", "--silent", "axios"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["node", str(script)], cwd=tmp_path, capture_output=True, check=True)
    assert b"JFIF" in done.stdout[:64]
    assert not done.stderr


def test_the_sdk_waits_for_the_result(sdk: Any) -> None:
    result = sdk.run(TURBO, **CALL, batch_size=2)
    assert result["status"] == "COMPLETED"
    assert len(result["output"]) == 2
    assert result["metrics"]["remaining_credits"] < 1e6


def test_the_sdk_reads_the_bytes_of_a_blocking_call(sdk: Any) -> None:
    image = sdk.run_sync(TURBO, **CALL, base64=False).content
    assert image.startswith(b"\xff\xd8")
    assert base64.b64decode(sdk.run_sync(TURBO, **CALL).json()["image"]) == image


def test_the_sdk_submits_waits_and_asks_again(sdk: Any) -> None:
    job = sdk.submit_async(LARGE, **CALL, seed=-1)
    done = job.wait(timeout=20, interval=0.05)
    assert (done["status"], job.status()["status"]) == ("COMPLETED", "COMPLETED")
    assert job.result()["output"] == done["output"]
    again = sdk.run(LARGE, **CALL, seed=done["seed"])
    with urlopen(done["output"]) as first, urlopen(again["output"]) as second:
        assert first.read() == second.read()


def test_the_sdk_sees_failures_and_its_own_time_out(server: Running, sdk: Any) -> None:
    segmind = importlib.import_module("segmind")
    job = sdk.submit_async(LARGE, **CALL | {"prompt": "fail"})
    with pytest.raises(segmind.v2.InferenceFailed) as failed:
        job.wait(timeout=20, interval=0.05)
    assert "told to fail" in failed.value.detail
    assert job.result()["status"] == "FAILED"
    job = sdk.submit_async(LARGE, **CALL | {"prompt": "wait"})
    with pytest.raises(segmind.v2.InferenceTimeout):
        job.wait(timeout=0.2, interval=0.05)
    assert sdk._request("POST", f"{server.url}/v2/requests/{job.request_id}/cancel").json()["request_id"]
    with pytest.raises(segmind.v2.InferenceFailed, match="cancelled"):
        job.wait(timeout=20, interval=0.05)
    with pytest.raises(segmind.SegmindError) as refused:
        sdk.run_sync(LARGE, **CALL | {"steps": 1})
    assert refused.value.status == 400
    assert refused.value.detail == "steps: 1 is out of range; expected 10 to 70"


def test_the_sdk_runs_a_pixelflow(server: Running, sdk: Any) -> None:
    result = sdk.pixelflows.run(workflow_url=f"{server.url}/workflows/{LARGE}", data=dict(CALL), poll_interval=0.05)
    assert result["status"] == "COMPLETED"
    assert result["output"].startswith(server.url)
    failed = sdk.pixelflows.run(
        workflow_url=f"{server.url}/workflows/{LARGE}", data=CALL | {"prompt": "fail"}, poll_interval=0.05
    )
    assert failed["status"] == "FAILED"
