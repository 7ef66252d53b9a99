"""`POST /jobs/{id}/place`: another place in the queue for a job that waits, among its owner's own jobs."""

from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.server.access.auth import require, take_turn
from sigmagraph.engine.server.comfy.job_json import summary
from sigmagraph.engine.server.context import JOBS, OWNER, reply
from sigmagraph.engine.server.transport.request_bodies import object_body

__all__ = ["PLACE_ROWS"]

MOST = 1e300


async def place(request: web.Request) -> web.Response:
    """Move a waiting job: `{"front": true}`, or `{"number": N}`, smaller numbers first. Others' turns stay as they are.

    `GET /jobs` calls the number `priority`, as ComfyUI does. A job that does not wait is a 409, and a move more than
    `requests_per_minute` a 429: it counts like a submission.
    """
    require(request, "submit")
    take_turn(request)
    body = await object_body(request)
    front, number = body.get("front", False), body.get("number")
    if type(front) is not bool or front == (number is not None) or not (front or _is_number(number)):
        raise BadValue("number", number, 'a number; or {"front": true} in its place')
    if number is not None:
        number = float(
            min(max(number, -MOST), MOST)
        )  # a whole number of any length; the queue refuses what is at the end
    job = await request.app[JOBS].reorder(request.match_info["id"], request[OWNER], number=number, front=front)
    return reply(summary(job))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


PLACE_ROWS = (("POST", "/jobs/{id}/place", place),)
