"""A real server with a pack that has a route and a script: the worker runs the one, the editor is given the other."""

import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.serving import Server

PACK = """
import os
from aiohttp import web
from server import PromptServer

WEB_DIRECTORY = "./js"
NODE_CLASS_MAPPINGS = {}


@PromptServer.instance.routes.get("/mine/pid")
async def pid(request):
    return web.json_response({"pid": os.getpid()})
"""


def test_a_route_runs_in_the_worker_also_in_the_next_one(tmp_path: Path) -> None:
    for name, text in {"__init__.py": PACK, "js/a.js": "1"}.items():
        path = tmp_path / "packs/mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    flags = ("--pack-routes", "--pack-web", "--custom-nodes", str(tmp_path / "packs"))
    server = Server(tmp_path / "home", *flags)
    try:
        server.start()
        assert server.process is not None
        worker = server.json("/mine/pid")["pid"]
        assert worker != server.process.pid
        assert server.json("/packs/mine/mine/pid") == {"pid": worker}
        assert urllib.request.urlopen(f"{server.url}/extensions/mine/a.js", timeout=30).read() == b"1"
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while pid(server) in (None, worker):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        server.stop()


def pid(server: Server) -> int | None:
    """The process that answers the route now; None while there is none."""
    try:
        return int(server.json("/mine/pid")["pid"])
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return None
