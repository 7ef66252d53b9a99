"""Reading many requests of an owner: what a search and a guess of time do. The database has few readers for all."""

from aiohttp import web

from sigmagraph.engine.jobs.job import JobQuery, Page
from sigmagraph.engine.server.context import JOBS, OWNER
from sigmagraph.engine.server.decoding.shares import Shares
from sigmagraph.engine.server.turns import turn_of

__all__ = ["SEARCHING", "found"]

SEARCHING: web.AppKey[Shares] = web.AppKey("searching", Shares)
MOST_WAITING = 32
"""Searches of one owner that wait for its turn: a page of the gallery asks several things at a time."""


async def found(request: web.Request, query: JobQuery) -> Page:
    """One page of jobs. A query that reads requests waits for its owner's turn, so that readers are left for others."""
    jobs = request.app[JOBS]
    if not (query.text or query.fields or query.with_request):
        return await jobs.find(query)
    async with turn_of(request.app[SEARCHING], request[OWNER], "searches", MOST_WAITING):
        return await jobs.find(query)
