"""The cluster file of docs/cluster.md by `ray up`; its machines are namespaces of this one. Needs root; by ray.sh."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from sigmagraph.engine.jobs.cluster.ray_cluster import RayCluster
from sigmagraph.engine.jobs.job import State
from tests.jobs.cluster import wire
from tests.jobs.cluster.links import submitted, until
from tests.jobs.cluster.nodes import expected
from tests.jobs.cluster.ray_nodes import (
    NEEDS_TUN,
    STORE_BYTES,
    content,
    fleet,
    free_port,
    front,
    laid,
    report,
    run,
    until_answer,
)
from tests.jobs.cluster.test_examples import FILES

CHECKOUT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore"), NEEDS_TUN]
SSH = """#!/usr/bin/env bash
while [ "${{1#*@10.77}}" = "$1" ]; do shift; done
host="$1"; shift
case "$host" in
  *{here}) exec nsenter -t {head} -p -m env HOME={home}/head bash -c "$*";;
  *) exec nsenter -t {worker} -p -m -n env HOME={home}/worker bash -c "$*";;
esac
"""
RSYNC = """#!/usr/bin/env bash
from="${{@: -2:1}}"; to="${{@: -1}}"; to="${{to#*:}}"; to="${{to/#\\~/{home}/head}}"
mkdir -p "$(dirname "$to")"; cp -r "$from" "$to"
"""
RAY = """#!/usr/bin/env bash
exec {python} -m ray.scripts.scripts "$@"
"""
OWN = ("unshare", "-p", "-f", "-m", "--mount-proc", "sleep")


@contextmanager
def two_machines(home: Path) -> Iterator[dict[str, str]]:
    """Two tables of processes and two networks, and what `ssh`, `rsync` and `ray` are there; the environment for it."""
    with ExitStack() as stack:
        stack.enter_context(laid("sgup", 0.0005, 0))
        head = stack.enter_context(subprocess.Popen([*OWN, "600"]))
        first = child(head.pid)
        entering = ["nsenter", "-t", str(first), "-p", "-m"]
        stack.enter_context(subprocess.Popen([*entering, "ip", "netns", "exec", "sgup", *OWN, "601"]))
        stack.callback(os.kill, first, signal.SIGKILL)  # with its first process all others of a table end
        worker = 0
        while not worker:
            found = subprocess.run(
                [*entering, "pgrep", "-f", "^sleep 601"], capture_output=True, text=True, check=False
            )
            worker = int(found.stdout.split()[0]) if found.stdout else 0
            time.sleep(0.1)
        places = {"here": wire.HERE, "head": first, "worker": worker, "home": home, "python": sys.executable}
        for name, script in (("ssh", SSH), ("rsync", RSYNC), ("ray", RAY)):
            (home / "bin").mkdir(exist_ok=True)
            (home / "bin" / name).write_text(script.format(**places))
            (home / "bin" / name).chmod(0o755)
        path = f"{home / 'bin'}:{os.environ['PATH']}"
        told = {"PATH": path, "PYTHONPATH": str(CHECKOUT), "RAY_AUTH_MODE": "disabled", "HOME": str(home / "operator")}
        words = "".join(f"export {name}={value}\n" for name, value in told.items() if name != "HOME")
        for name in ("operator", "head", "worker"):
            (home / name).mkdir()
            (home / name / ".bashrc").write_text(words)
        yield os.environ | told


def child(pid: int) -> int:
    """The only one of a process that was just started."""
    while not (found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        time.sleep(0.05)
    return int(found[0])


def cluster_file(home: Path, port: int) -> dict[str, Any]:
    """That of the page, with the addresses and sizes of this test; what is installed already is not installed again."""
    (home / "key").touch()
    gcs, size = free_port(), f"--object-store-memory={STORE_BYTES}"
    more = {
        "head": f" --num-cpus=0 --node-ip-address={wire.HERE} --include-dashboard=false {size} --temp-dir={home}/ray",
        "worker": f" --num-cpus=1 --node-ip-address={wire.THERE} {size}",
    }
    file = {**FILES["local"], "cluster_name": f"growing{port}", "max_workers": 1, "idle_timeout_minutes": 0.1}
    file["provider"] = {"type": "local", "head_ip": wire.HERE, "worker_ips": [wire.THERE]}
    file["auth"] = {"ssh_user": "root", "ssh_private_key": str(home / "key")}
    (kind,) = file["available_node_types"]
    has = {**file["available_node_types"][kind], "resources": {"CPU": 1}, "max_workers": 2}
    file |= {"available_node_types": {kind: has}, "file_mounts": {}}
    for who, words in more.items():
        commands = [
            line.replace("10001", str(port)).replace("6379", str(gcs)) for line in file[f"{who}_start_ray_commands"]
        ]
        file[f"{who}_start_ray_commands"] = [line + words if "ray start" in line else line for line in commands]
        file[f"{who}_setup_commands"] = []
    return file


def test_a_queue_brings_a_machine_of_the_documented_file_and_gives_it_back(
    tmp_path_factory: pytest.TempPathFactory, record_property: Callable[[str, object], None]
) -> None:
    home = tmp_path_factory.mktemp("up")
    port, ray = free_port(), import_module("ray")
    file = home / "cluster.yaml"
    file.write_text(yaml.safe_dump(cluster_file(home, port)))

    def up() -> set[str]:
        return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    async def case() -> None:
        clock, seen = asyncio.get_running_loop().time, []

        async def reaches(addresses: set[str]) -> None:
            began = clock()
            await until_answer(up, addresses, 90)
            seen.append(f"{len(addresses)} after {clock() - began:.0f} s")

        address = f"ray://{wire.HERE}:{port}"
        async with front(home, fleet(home, address, most=1), 0) as jobs:
            await reaches({wire.HERE, wire.THERE})
            async with asyncio.timeout(60):
                await until(lambda: any(status.is_ready for status in jobs.workers()))
            done = [await jobs.wait((await submitted(jobs, seed=seed, count=3)).id) for seed in range(3)]
            assert {(job.state, job.attempt) for job in done} == {(State.SUCCEEDED, 1)}
            assert [content(home, job) for job in done] == [expected(seed, 3) for seed in range(3)]
        cluster = RayCluster(address, {})
        await asyncio.to_thread(cluster.join)
        await asyncio.to_thread(cluster.request, [])
        await reaches({wire.HERE})
        await asyncio.to_thread(cluster.leave)
        report(record_property, "growth", f"machines: {', '.join(seen)}")

    with two_machines(home) as environment:
        words = [sys.executable, "-m", "ray.scripts.scripts", "up", "-y", "--no-config-cache", str(file)]
        started = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-2000:]
        run(case())
