"""The server is killed over and over under Comfy API v2: its promises to a client that comes back hold.

Run with `pytest -m slow tests/e2e/disasters`; SIGMAGRAPH_V2_JOBS and SIGMAGRAPH_V2_KILLS make it smaller.
"""

import io
import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import blake3
import pytest
from PIL import Image

from tests.e2e.disasters import comfy_v2
from tests.e2e.disasters.comfy_v2 import ASSETS, JOBS, Told
from tests.e2e.disasters.mixed import Graph, mixed, undisturbed
from tests.e2e.disasters.processes import Receiver, Server, disturb, lost_attempts, wait_for

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("SIGMAGRAPH_V2_JOBS", "20"))
KILLS = int(os.environ.get("SIGMAGRAPH_V2_KILLS", "16"))
PAUSE = 0.6  # between two submissions, in starts of the server


@dataclass
class Accepted:
    """A job as its client knows it: how it was submitted, what its stream tells, and what its cancel was answered."""

    id: str
    label: str
    body: dict[str, Any]
    calm: Graph
    stream: Future[list[Told]]
    cancel: Future[tuple[str, int]] | None


@dataclass
class Client:
    """Uploads, submits, listens and cancels from threads of its own, whatever happens."""

    server: Server
    webhook: str
    accepted: list[Accepted] = field(default_factory=list)
    assets: dict[str, bytes] = field(default_factory=dict)

    def submit_all(self, threads: ThreadPoolExecutor) -> None:
        for at in range(COUNT):
            self.submit(at, threads)
            time.sleep(PAUSE * self.server.start_s)

    def submit(self, at: int, threads: ThreadPoolExecutor) -> None:
        calm, sent = mixed(at), mixed(at)
        if at % 4 == 2:
            calm["8"]["inputs"]["image"], sent["8"]["inputs"]["image"] = self.picture(at)
        if at % 5 == 4:
            for graph in (calm, sent):
                graph["5"]["inputs"]["steps"] = 1500  # it is told to stop before it is done
        body = {"workflow": sent, "webhook_url": self.webhook, "webhook_secret": "whsec_" + "A" * 32}
        job_id = comfy_v2.submitted(self.server, f"job {at}", body)
        stream = threads.submit(comfy_v2.heard, self.server, job_id, random.Random(at))
        cancel = threads.submit(self.cancel, job_id, waits=at % 10 == 4) if at % 5 == 4 else None
        self.accepted.append(Accepted(job_id, f"job {at}", body, calm, stream, cancel))

    def picture(self, at: int) -> tuple[str, dict[str, Any]]:
        """A new picture as an asset: the name that loaders know it by, and a reference to it."""
        file = io.BytesIO()
        Image.linear_gradient("L").rotate(9 * at).resize((64, 64)).convert("RGB").save(file, "PNG")
        asset = comfy_v2.uploaded(self.server, file.getvalue())
        digest = blake3.blake3(file.getvalue()).hexdigest()
        assert asset["hash"] == f"blake3:{digest}"
        self.assets[asset["id"]] = file.getvalue()
        info = {"id": asset["id"]} if at % 8 == 2 else {"hash": asset["hash"]}
        return f"assets/{digest}.png", {"__type": "core/ASSET", "info": info}

    def cancel(self, job_id: str, *, waits: bool) -> tuple[str, int]:
        """Stop a job, once it runs where it `waits`; the status that was answered, and the attempts begun by then."""
        if waits:
            wait_for(lambda: self.server.insist(f"{JOBS}/{job_id}", None, "-")["status"] != "queued", 300)
        answer = self.server.insist(f"{JOBS}/{job_id}/cancel", {}, "-")
        return answer["status"], attempts(self.server, job_id)

    def check_after_kill(self, chance: random.Random) -> None:
        """What was uploaded is found by its content; a key that was used stays used, and named one job."""
        for data in list(self.assets.values()):
            assert comfy_v2.has_content(self.server, blake3.blake3(data).hexdigest())
        if self.accepted:
            job = chance.choice(self.accepted)
            assert comfy_v2.new_job(self.server, job.label, job.body) is None
            assert [each["id"] for each in comfy_v2.labelled(self.server, job.label)] == [job.id]


def attempts(server: Server, job_id: str) -> int:
    return int(server.rows(f"select count(*) from events where job_id = '{job_id}' and type = 'started'")[0][0])


def test_what_api_v2_promises_outlives_kills(server: Server, receiver: Receiver, webhook: str) -> None:
    client, chance = Client(server, webhook), random.Random(KILLS)

    def kill_server() -> None:
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        server.start()
        client.check_after_kill(chance)

    def kill_worker() -> None:
        server.signal_worker(signal.SIGKILL)

    with ThreadPoolExecutor(2 * COUNT + 1) as threads:
        submitting = threads.submit(client.submit_all, threads)
        disturb(server, KILLS * 5 // 4, [*[kill_server] * 4, kill_worker], 0.6)
        submitting.result()
    wait_for(lambda: set(receiver.heard) == {job.id for job in client.accepted}, 120)
    ends = Counter(check_job(server, job) for job in client.accepted)
    assert ends["succeeded"] >= COUNT * 4 // 5
    assert ends["canceled"] > 0
    assert set(ends) == {"succeeded", "canceled"}
    assert [len(set(ids)) for ids in receiver.heard.values()] == [1] * COUNT
    assert {job["id"] for job in server.call(f"{JOBS}?limit=200")["jobs"]} >= {job.id for job in client.accepted}
    [made] = server.rows("select count(*) from jobs where source = 'comfy_api'")
    assert made == (COUNT,)
    for asset_id, data in client.assets.items():
        assert comfy_v2.fetched(server, f"{ASSETS}/{asset_id}/content") == data
    assert lost_attempts(server) >= KILLS // 4  # the kills did hit running jobs


def check_job(server: Server, job: Accepted) -> str:
    """It ended once, its reader was told everything once, and its pictures are the undisturbed ones; how it ended."""
    record, told = server.call(f"{JOBS}/{job.id}"), job.stream.result()
    check_stream(told, comfy_v2.whole(server, job.id))
    assert [each.data["status"] for each in told if each.name == "status"][-1] == record["status"]
    assert server.rows(f"select count(*) from events where job_id = '{job.id}' and type = 'ended'") == [(1,)]
    if job.cancel is not None:
        said, begun = job.cancel.result()
        assert record["status"] == "canceled" if said == "canceled" else said in ("canceling", record["status"])
        assert attempts(server, job.id) == begun  # it did not run again
    assert job.cancel is not None or record["status"] == "succeeded", record["error"]
    if record["status"] == "succeeded":
        shown = [comfy_v2.fetched(server, f"{ASSETS}/{output['id']}/content") for output in record["outputs"]]
        assert shown == undisturbed(server.home, job.calm), job.label
    return str(record["status"])


def check_stream(told: list[Told], whole: list[Told]) -> None:
    """Each id once and in order; what is not progress (thinned by time) as a reader has it who was never cut off."""
    places = [place(each.id) for each in told]
    assert places == sorted(set(places))
    assert [each for each in told if each.name != "progress"] == [each for each in whole if each.name != "progress"]


def place(event_id: str) -> tuple[int, float]:
    """NUMBER.PLACE before NUMBER, the last of its kind."""
    number, dot, rest = event_id.partition(".")
    return int(number), int(rest) if dot else float("inf")
