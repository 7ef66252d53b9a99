"""Ray's own autoscaler starts and stops machines of this cluster as the queue grows and shrinks. Run by ray.sh."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.jobs.job import State
from tests.jobs.cluster.links import submitted
from tests.jobs.cluster.nodes import expected
from tests.jobs.cluster.ray_nodes import (
    STORE_BYTES,
    RayStart,
    content,
    fleet,
    free_port,
    front,
    report,
    until_answer,
    until_listens,
    until_ready,
)
from tests.jobs.cluster.ray_nodes import run as run_case
from tests.jobs.serving import ends, log

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]
MOST, JOBS = 3, 9


def cluster_file(head: str) -> dict[str, Any]:
    """What `--autoscaling-config` takes. A machine is a set of processes here, started by Ray's provider for tests."""
    machine = {"CPU": 1, "object_store_memory": STORE_BYTES}
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "device": {"resources": machine, "node_config": {}, "min_workers": 0, "max_workers": MOST},
    }
    provider = {"type": "fake_multinode", "gcs_address": head}
    flags = ("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check")
    empty = ("auth", "docker", "file_mounts")
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    return {
        "cluster_name": "growing",
        "provider": {**provider, **dict.fromkeys(flags, True)},
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "max_workers": MOST,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
        **{name: {} for name in empty},
        **{name: [] for name in lists},
    }


@contextmanager
def growing(folder: Path) -> Iterator[str]:
    """A head without a worker, whose autoscaler may start machines on this one; its address."""
    config, port, gcs = folder / "autoscaling.json", free_port(), free_port()
    config.write_text(json.dumps(cluster_file(f"{import_module('ray').util.get_node_ip_address()}:{gcs}")))
    words = ["--head", f"--autoscaling-config={config}", f"--ray-client-server-port={port}", f"--port={gcs}"]
    words += ["--num-cpus=0", f"--object-store-memory={STORE_BYTES}", "--include-dashboard=false"]
    head = RayStart(*words, AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_FAKE_CLUSTER="1")
    try:
        until_listens(port)
        yield f"ray://127.0.0.1:{port}"
    finally:
        head.stop()


def test_machines_come_with_the_queue_and_go_when_it_is_empty(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    ray = import_module("ray")

    def up() -> int:
        return sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())

    async def case() -> None:
        clock, seen = asyncio.get_running_loop().time, []

        async def reaches(count: int, since: float) -> None:
            await until_answer(up, count, 100)
            seen.append(f"{count} after {clock() - since:.0f} s")

        with growing(tmp_path) as address:
            began = clock()
            async with front(tmp_path, fleet(tmp_path, address, most=MOST, idle_s=3.0), 1) as jobs:
                await reaches(1, began)
                began = clock()
                sent = [await submitted(jobs, seed=seed, count=30, seconds=0.2) for seed in range(JOBS)]
                await reaches(MOST, began)
                done = [await jobs.wait(job.id) for job in sent]
                began = clock()
                await reaches(1, began)
                await until_ready(jobs, 1, 20)
                last = await jobs.wait((await submitted(jobs, seed=JOBS, count=2)).id)
                assert content(tmp_path, last) == expected(JOBS, 2)
                for seed, job in enumerate(done):
                    assert (job.state, job.attempt, ends(await log(jobs, job))) == (State.SUCCEEDED, 1, 1)
                    assert content(tmp_path, job) == expected(seed, 30)
                assert len({job.worker for job in done}) == MOST
        report(record_property, "growth", f"machines: {', '.join(seen)}")

    run_case(case())
