"""`sigmagraph workers`: what a running server has to work with: machines, devices, what is resident, what runs."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sigmagraph.client_calls import LOCAL
from sigmagraph.engine.cli.options import AsJson
from sigmagraph.engine.errors import ServerRefused
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
    for worker in _listed(answer, "workers"):
        device, free = _device(worker)
        names = (str(worker.get("name") or ""), str(worker.get("machine") or "here"), device, free, _state(worker))
        table.add_row(*names, *(", ".join(map(str, _listed(worker, name, str))) for name in ("jobs", "models")))
    out().print(table)
    if answer.get("trouble"):
        remark(str(answer["trouble"]))
    if "running" in answer:
        remark(f"{answer['running']} jobs run, {answer.get('queued')} wait")


def _listed(record: Mapping[str, Any], name: str, kind: type = dict) -> list[Any]:
    """A list of the answer; an older server may lack it, and another program has something else there."""
    found = record.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, kind) for entry in found):
        raise ServerRefused(
            "GET /workers", 200, "", f"`{name}` is not a list as sigmagraph tells it: is it at this address?"
        )
    return found


def _device(worker: Mapping[str, Any]) -> tuple[str, str]:
    devices = _listed(worker, "devices")
    if not devices:
        return "", ""
    free = devices[0].get("vram_free")
    names = ", ".join(str(device.get("name")) for device in devices)
    return names, bytes_in_words(free) if isinstance(free, int | float) else ""


def _state(worker: Mapping[str, Any]) -> str:
    if worker.get("is_ready"):
        starts = worker.get("starts", 1)
        return "ready" if starts == 1 else f"ready, started {starts} times"
    return str(worker.get("last_error") or "starting")
