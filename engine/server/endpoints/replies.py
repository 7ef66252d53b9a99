"""The finished request as a reply: image bytes or JSON, as the client wished, with the accounting in headers."""

from dataclasses import replace
from typing import Any, Literal

from aiohttp import web

from sigmagraph.engine.jobs.billing.accounts import Account
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.server.context import FOLDERS, compact
from sigmagraph.engine.server.decoding.pool import DECODERS
from sigmagraph.engine.server.endpoints import job_json, outputs
from sigmagraph.engine.server.endpoints.context import CALLER, PUBLISHED, base_url
from sigmagraph.engine.server.endpoints.guard import rate_headers
from sigmagraph.engine.server.endpoints.negotiation import Wish, wish
from sigmagraph.engine.server.endpoints.refusal import Refused

__all__ = ["finished", "look_again", "output_of", "standing_of"]

Form = Literal["image", "base64", "url"]


async def finished(request: web.Request, job: Job) -> web.Response:
    """The 200 of the blocking call."""
    paths = outputs.pictures_of(job, request.app[FOLDERS](job.owner))
    if not paths:
        raise Refused(500, "no_output", "The workflow ended without a picture", request_id=job.id)
    wanted = wish(request.headers.get("Accept", "*/*"))
    form = form_of(job, wanted, len(paths))
    taken = request[CALLER].taken
    rate = rate_headers(taken, request.app[PUBLISHED].clock()) if taken is not None else {}
    headers = job_json.headers_of(job, await standing_of(request), rate)
    kind, quality = outputs.kind_of(job.meta)
    if form == "image":
        body = await outputs.encoded(request.app[DECODERS], job.owner, paths[0], kind, quality)
        return web.Response(body=body, content_type=f"image/{kind}", headers=headers)
    images = await _images(request, job, form)
    is_split = wanted == "image" and len(paths) > 1
    note = f"{len(paths)} images: bytes can carry one, so these come as JSON" if is_split else ""
    text = compact(job_json.image_body(job, images, is_url=form == "url", note=note))
    return web.Response(text=text, content_type="application/json", headers=headers)


def form_of(job: Job, wanted: Wish, count: int) -> Form:
    """How the pictures travel.

    `base64: true` in the body is the strongest wish, then an image type in Accept, then JSON in Accept, then the
    endpoint's own defaults. Several images never come as bytes.
    """
    meta = job.meta
    in_json: Form = "base64" if meta.get("base64") else "url"
    if (meta.get("base64") and meta.get("base64_given")) or wanted == "json":
        return in_json
    if wanted == "image" or (not meta.get("base64") and meta.get("default") == "image"):
        return "image" if count == 1 else in_json
    return in_json


async def output_of(request: web.Request, job: Job) -> Any:
    """The `output` of an ended request: a URL (base64 where the body asked for it), a list of them for a batch."""
    is_text = job.meta.get("base64") and job.meta.get("base64_given")
    images = await _images(request, job, "base64" if is_text else "url")
    return images[0] if len(images) == 1 else images


async def standing_of(request: web.Request) -> Account | None:
    """The caller's account after the charge; None on a server without keys."""
    caller = request[CALLER]
    if caller.standing is None:
        return None
    return await request.app[PUBLISHED].keys.standing(caller.owner)


async def look_again(request: web.Request) -> None:
    """Know the caller's account as it is after the request was accepted, its cost held."""
    request[CALLER] = replace(request[CALLER], standing=await standing_of(request))


async def _images(request: web.Request, job: Job, form: Form) -> list[str]:
    paths = outputs.pictures_of(job, request.app[FOLDERS](job.owner))
    if form == "base64":
        kind, quality = outputs.kind_of(job.meta)
        pictures = [await outputs.encoded(request.app[DECODERS], job.owner, path, kind, quality) for path in paths]
        return outputs.as_text(pictures)
    published = request.app[PUBLISHED]
    return outputs.output_urls(published.secret, job, base_url(request), len(paths), published.file_s)
