"""`sigmagraph workers`: what a running server has to work with: machines, devices, what is resident, what runs."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sigmagraph.client_calls import LOCAL
from sigmagraph.engine.cli.options import AsJson
from sigmagraph.engine.units import bytes_in_words

__all__ = ["workers"]


def workers(
    url: Annotated[str, typer.Argument(help="The server's address.")] = LOCAL,
    key: Annotated[
        str | None, typer.Option("--key", envvar="SIGMAGRAPH_KEY", help="A key with the scope admin.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List a server's workers: machine, device, free memory, the weights they used last, the jobs they run."""
    from sigmagraph.client import Client
    from sigmagraph.engine.cli.console import columns, out, remark, write_json

    answer = Client(url, key, timeout_s=30.0).workers()
    if as_json:
        write_json(answer)
        return
    table = columns("worker", "machine", "device", "free", "state", "runs", "resident", right=("free",))
    for worker in answer["workers"]:
        device, free = _device(worker)
        runs, resident = ", ".join(worker["jobs"]), ", ".join(worker["models"])
        table.add_row(worker["name"], worker["machine"] or "here", device, free, _state(worker), runs, resident)
    out().print(table)
    if answer["trouble"]:
        remark(answer["trouble"])
    remark(f"{answer['running']} jobs run, {answer['queued']} wait")


def _device(worker: Mapping[str, Any]) -> tuple[str, str]:
    devices = worker.get("devices") or []
    if not devices:
        return "", ""
    return ", ".join(device["name"] for device in devices), bytes_in_words(devices[0]["vram_free"])


def _state(worker: Mapping[str, Any]) -> str:
    if worker["is_ready"]:
        return "ready" if worker["starts"] == 1 else f"ready, started {worker['starts']} times"
    return worker["last_error"] or "starting"
