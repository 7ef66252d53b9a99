"""Putting the server together and running it: folders, job service, worker, application, signals."""

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import signal
import socket
import tempfile
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from sigmagraph.engine.compose.aliases import read_aliases
from sigmagraph.engine.compose.model_paths import extra_folders
from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.compose.publishing import published, with_demo, words
from sigmagraph.engine.errors import EngineError, MissingFile, WorkerLost, WriteFailed
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.cluster.depot import Depot
from sigmagraph.engine.jobs.cluster.fleet import RayFleet
from sigmagraph.engine.jobs.cluster.settings import ActorSettings, FleetSettings
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, ProcessSettings, StoreSettings
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.jobs.workers.process import ProcessWorker
from sigmagraph.engine.jobs.workers.worker import Worker, load_factory
from sigmagraph.engine.server.access.keys import StoredKeys
from sigmagraph.engine.server.app import ServerParts, make_app
from sigmagraph.engine.server.monitoring.logs import RecentLines, RequestLogger, configure
from sigmagraph.engine.server.settings import PREFIX, Settings, misspelt
from sigmagraph.engine.server.static import find_frontend
from sigmagraph.engine.server.transport.allocator import keep_little
from sigmagraph.engine.server.transport.connections import Connections, listening, places
from sigmagraph.engine.server.webhook_client import poster
from sigmagraph.engine.shipped import shipped_models
from sigmagraph.engine.units import DAY_S
from sigmagraph.engine.writing import make_folder

__all__ = ["FACTORY", "BadBind", "check_keys", "compose", "run"]

LOG = logging.getLogger("sigmagraph.server")
ACCESS = logging.getLogger("sigmagraph.access")
FACTORY = "sigmagraph.engine.compose.worker:build"
KEY_COMMAND = "sigmagraph keys create NAME"


class BadBind(EngineError):
    """The server cannot listen where it should."""

    code = "bad_bind"


def run(settings: Settings, say: Callable[[str], None] | None = None) -> None:
    """Serve until stopped. `say` is a person at a terminal, who is told where to look and what is missing."""
    keep_little()
    configure(settings.log_format, settings.log_level)
    lines = RecentLines()
    logging.getLogger().addHandler(lines)
    os.environ[PREFIX + "COMFYUI"] = settings.comfyui  # for nodes, which run here or in workers that inherit it
    for warning in misspelt(os.environ):
        LOG.warning("a variable names no setting: %s", warning)
    listener = bound(settings.host, settings.port)
    with contextlib.closing(listener):
        asyncio.run(_serve(settings, listener, lines, say))


def bound(host: str, port: int) -> socket.socket:
    """A socket that has its port, before anything else is started."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(socket.socket(family, kind, proto))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            undo.pop_all()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "is in use; choose another with --port" if taken else f"cannot be used: {error.strerror or error}"
        raise BadBind(f"port {port} on {host} {reason}") from error
    return listener


def compose(
    settings: Settings, factory: str = FACTORY, pack_socket: Path | None = None
) -> tuple[JobService, Callable[[str], Folders]]:
    """The job service with its worker, and each owner's folders; the first worker serves packs' routes at a socket."""
    home, output = settings.home, settings.output
    assert home is not None
    assert output is not None
    if settings.demo:
        make_folder(home / "models")
    if not (home / "models").is_dir():
        raise MissingFile(home / "models", "there is no such folder; --home names the one that holds models/")
    for plugin in settings.plugins:
        if not plugin.is_file():
            raise MissingFile(plugin, "there is no such plugin file")
    for folder in (output, home / "input", home / "temp", home / "user"):
        if not os.access(make_folder(folder), os.W_OK | os.X_OK):
            raise WriteFailed(folder, "cannot be written: permission denied")
    extra = extra_folders(settings.extra_model_paths, home / "models", shipped_models(), settings.comfyui_dir)
    aliases = read_aliases(settings.aliases, home / "models")
    if settings.demo:
        aliases = with_demo(aliases, home)
    folders = folders_of(Folders(home / "models", home / "input", output, home / "temp", extra, aliases))
    options: dict[str, Any] = {
        "models": str(home / "models"),
        "input": str(home / "input"),
        "output": str(output),
        "temp": str(home / "temp"),
        "extra": {name: [str(path) for path in paths] for name, paths in extra.items()},
        "aliases": {folder: {name: str(path) for name, path in names.items()} for folder, names in aliases.items()},
        "cache": settings.cache,
        "cache_folder": str(home / "cache"),
        "batch_evaluations": settings.batch_evaluations,
        "precision": settings.precision,
        "memory": settings.memory,
        "compile": settings.compile,
        "previews": settings.previews,
        "watch_edits": settings.watch_edits,
        "custom_nodes": [str(path.resolve()) for path in settings.custom_nodes],
        "plugins": [str(path.resolve()) for path in settings.plugins],
        "pack_socket": str(pack_socket) if pack_socket is not None else None,
    }
    if settings.workers != "here":
        fleet = ray_fleet(settings, factory, options, folders)
        return JobService(job_settings(settings), [], folders, fleet=fleet), folders
    return JobService(job_settings(settings), _workers(settings, factory, options), folders), folders


def _workers(settings: Settings, factory: str, options: dict[str, Any]) -> list[Worker]:
    """One for each device that was named; the first keeps its results where a single one does."""
    if settings.in_process:
        return [InProcessWorker(load_factory(factory)(options | {"device": settings.devices}), slots=settings.slots)]
    found: list[Worker] = []
    for at, device in enumerate(settings.devices.split(",")):
        own = {"device": device, "cache_folder": options["cache_folder"] + (f"-{device}" if at else "")}
        own |= {"pack_socket": None} if at else {}
        name = device if "," in settings.devices else "worker"
        found.append(ProcessWorker(ProcessSettings(factory, options | own, name=name, slots=settings.slots)))
    return found


def ray_fleet(settings: Settings, factory: str, options: dict[str, Any], folders: Callable[[str], Folders]) -> RayFleet:
    """The workers of a cluster. What an option names by its path lies there on every machine."""
    home = settings.home
    assert home is not None
    there = options | {"models": str((settings.machine_home or home) / "models"), "device": settings.devices}
    front = hashlib.blake2b(
        f"{socket.gethostname()} {settings.port} {settings.database}".encode(), digest_size=8
    ).hexdigest()
    actor = ActorSettings(factory, there, front=front, slots=settings.slots, lease_s=settings.lease_s)
    address = "local" if settings.workers == "ray:local" else settings.workers
    gpus, labels, most = settings.gpus_per_worker, settings.machine_labels, settings.grow_to
    fleet = FleetSettings(address, gpus, labels, most, settings.idle_s)
    return RayFleet(fleet, actor, Depot(folders, home / "temp" / ".carried"))


def job_settings(settings: Settings) -> JobSettings:
    """What of the settings concerns the job layer."""
    kept = settings.keep_artifacts_days
    return JobSettings(
        store=StoreSettings(url=str(settings.database), has_peers=settings.shared_queue),
        takes_every_slot=settings.batch_evaluations > 1,
        max_queued=settings.max_queued,
        max_queued_per_owner=settings.max_queued_per_owner or max(1, settings.max_queued // 4),
        step_deadline_s=settings.step_deadline_s,
        keep_s=settings.keep_days * DAY_S,
        keep_jobs=settings.keep_jobs,
        artifacts_url=settings.artifacts,
        keep_files_s=kept * DAY_S if kept is not None else None,
    )


async def _serve(
    settings: Settings, listener: socket.socket, lines: RecentLines, say: Callable[[str], None] | None
) -> None:
    with contextlib.ExitStack() as undo:
        pack_socket = _pack_socket(undo) if settings.pack_routes else None
        await _serve_with(settings, listener, lines, say, pack_socket)


def _pack_socket(undo: contextlib.ExitStack) -> Path:
    """Where a worker serves routes of packs: in a folder that only this user may enter, gone at the end."""
    return Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sigmagraph-"))) / "packs.sock"


async def _serve_with(
    settings: Settings,
    listener: socket.socket,
    lines: RecentLines,
    say: Callable[[str], None] | None,
    pack_socket: Path | None,
) -> None:
    jobs, folders = compose(settings, pack_socket=pack_socket)
    await jobs.start()
    keys = StoredKeys(jobs.accounts, is_open=settings.no_keys)
    try:
        await check_keys(settings, jobs, keys)
        parts = ServerParts(jobs, folders, keys, settings, _home(settings) / "user", Path(str(settings.workflows)))
        parts.frontend, parts.lines = _frontend(settings), lines
        parts.published = published(settings, jobs, keys)
        parts.pack_socket = pack_socket
        parts.connections = Connections(places(settings.max_connections))
        log = ACCESS if settings.access_log else None
        runner = web.AppRunner(make_app(parts), access_log=log, access_log_class=RequestLogger, shutdown_timeout=5.0)
        try:
            await runner.setup()
            async with listening(runner, listener), poster(allows_private=settings.private_webhooks) as post:
                jobs.deliver(post, words(parts.published, folders))
                if say is not None:
                    say("\n".join(welcome(settings, listener, parts.frontend)))
                await _until_stopped(settings, listener, jobs)
        finally:
            await runner.cleanup()
    finally:
        await jobs.stop(0.0)


async def check_keys(settings: Settings, jobs: JobService, keys: StoredKeys) -> None:
    """Refuse a server that anybody could use; say so where nobody could."""
    has_key = await jobs.accounts.are_any()
    if not settings.is_loopback and (settings.no_keys or not has_key):
        reason = "no_keys is set" if settings.no_keys else f"there is no key: `{KEY_COMMAND}`"
        raise BadBind(f"{settings.host} can be reached from other machines, but {reason}")
    if await keys.required() and not has_key:
        LOG.warning("every key is revoked, so nobody can call: `%s`, or start with --no-keys", KEY_COMMAND)


async def _until_stopped(settings: Settings, listener: socket.socket, jobs: JobService) -> None:
    """Say where, wait for a signal, then let the running job finish while HTTP still answers.

    Raises `WorkerLost` where no worker can be started: a supervisor hears of it, and nobody waits for nothing.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    url = address(settings.host, listener.getsockname()[1])
    LOG.info("listening", extra={"url": url})
    if settings.open:
        loop.run_in_executor(None, webbrowser.open, url)
    stopped, hopeless = asyncio.create_task(stopping.wait()), asyncio.create_task(jobs.until_hopeless())
    await asyncio.wait((stopped, hopeless), return_when=asyncio.FIRST_COMPLETED)
    for number in (signal.SIGINT, signal.SIGTERM):  # a second signal ends it at once
        loop.remove_signal_handler(number)
    if hopeless.done():
        raise WorkerLost(f"{hopeless.result()}; what it printed stands above")
    hopeless.cancel()
    LOG.info("stopping", extra={"deadline_s": settings.stop_deadline_s})
    await jobs.stop(settings.stop_deadline_s)


def welcome(settings: Settings, listener: socket.socket, frontend: Path | None) -> list[str]:
    """What somebody at a terminal wants to know: where to look, how to end it, and what could be installed."""
    url = address(settings.host, listener.getsockname()[1])
    lines = [f"Open {url} in a browser; Ctrl+C ends it."]
    if frontend is None:
        lines.append("The editor is missing: pip install 'sigmagraph[editor]'")
    else:
        lines.append(f"That is the editor; forms, gallery and system are at {url}home")
    if find_spec("swagger_ui_bundle") is None:
        lines.append(f"The page {url}api-docs is missing: pip install 'sigmagraph[docs]'")
    return lines


def address(host: str, port: int) -> str:
    """The address a browser on this machine takes."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def _home(settings: Settings) -> Path:
    assert settings.home is not None
    return settings.home


def _frontend(settings: Settings) -> Path | None:
    """The folder with the editor: the one the operator named, else the installed package's."""
    if settings.frontend is None:
        return find_frontend()
    if not (settings.frontend / "index.html").is_file():
        raise MissingFile(settings.frontend, "holds no index.html")
    return settings.frontend.resolve()
