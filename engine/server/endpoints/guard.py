"""The door of this adapter: verb, key, scope, permission and rate, each with its own refusal. JSON always."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.typedefs import Handler

from sigmagraph.engine.errors import nearest
from sigmagraph.engine.jobs.billing.accounts import Account
from sigmagraph.engine.server.access.auth import SCOPES
from sigmagraph.engine.server.access.rates import Taken
from sigmagraph.engine.server.access.wrong_keys import TooManyWrongKeys, may_try_key
from sigmagraph.engine.server.context import OWNER
from sigmagraph.engine.server.endpoints import job_json
from sigmagraph.engine.server.endpoints.context import CALLER, PUBLISHED, Caller
from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from sigmagraph.engine.server.endpoints.refusal import Refused, answer

__all__ = ["GUARDED", "RoutePolicy", "endpoint_of", "guarded", "identified", "own_policy", "rate_headers", "take_token"]

CHALLENGE = {"WWW-Authenticate": 'ApiKey header="x-api-key"'}  # RFC 9110 wants one with every 401
LONGEST_S = 1e9
NO_KEY = "Missing Authorization or x-api-key in header"
GUARDED: web.AppKey[frozenset[Handler]] = web.AppKey("guarded", frozenset)


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """One verb of a path: its handler, and the scope a key needs for it (None: no key at all)."""

    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    scope: str | None = "read"


@web.middleware
async def own_policy(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Leave the general rules for keys and errors out where a path has this adapter's own."""
    own = request.match_info.handler
    return await own(request) if own in request.app[GUARDED] else await handler(request)


def guarded(policies: Mapping[str, RoutePolicy]) -> Handler:
    """A handler for every verb of a path that checks who comes and turns every failure into JSON."""
    allow = ",".join(sorted({*policies, *(("HEAD",) if "GET" in policies else ())}))

    async def dispatch(request: web.Request) -> web.StreamResponse:
        try:
            policy = policies.get("GET" if request.method == "HEAD" else request.method)
            if policy is None:
                message = f"{request.method} is not allowed here; allowed: {allow}"
                raise Refused(405, "method_not_allowed", message, headers={"Allow": allow})
            request[CALLER] = await _caller(request, policy.scope)
            _require_scope(request[CALLER], policy.scope)
            request[OWNER] = request[CALLER].owner
            standing = request[CALLER].standing
            request[SCOPES] = standing.scopes if standing is not None else ("read", "submit", "admin")
            response = await policy.handler(request)
        except (ConnectionResetError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  # the last resort: logged by `answer`, answered as JSON
            response = answer(error, request)
        return _with_credits(request, response)

    return dispatch


def _with_credits(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """The reply with what is left of the caller's credits, refusals too; nothing where nobody said who calls."""
    caller = request.get(CALLER)
    if caller is not None and caller.is_known and not response.prepared:
        response.headers.setdefault("x-remaining-credits", job_json.credits_left(caller.standing))
    return response


async def _caller(request: web.Request, scope: str | None) -> Caller:
    """Who is calling; a server without keys takes everyone as its own."""
    keys = request.app[PUBLISHED].keys
    if scope is None:
        return Caller(is_known=False)
    if not await keys.required():
        return Caller()
    key = request.headers.get("x-api-key", "")
    if not key:
        has_bearer = request.headers.get("Authorization", "").lower().startswith("bearer")
        hint = "; a bearer token is not accepted" if has_bearer else ""
        raise Refused(401, "missing_key", NO_KEY + hint, headers=CHALLENGE)
    standing = await identified(request, key)
    if standing is None:
        raise Refused(401, "unknown_key", "Invalid API key: it is unknown or was revoked", headers=CHALLENGE)
    return Caller(standing.id, standing)


async def identified(request: web.Request, key: str) -> Account | None:
    """The account of a key; 429 where too many wrong ones came from there."""
    try:
        with may_try_key(request, key) as tell:
            standing = await request.app[PUBLISHED].keys.identify(key)
            tell(standing is not None)
            return standing
    except TooManyWrongKeys as error:
        headers = {"Retry-After": str(error.wait_s)}
        raise Refused(429, error.code, str(error), headers=headers, retry_after=error.wait_s) from error


def _require_scope(caller: Caller, scope: str | None) -> None:
    """403 for a key that may not do this."""
    if caller.standing is not None and not {scope, "admin"} & set(caller.standing.scopes):
        raise Refused(403, "forbidden", f"This key lacks the scope {scope!r}", scope=scope)


def endpoint_of(request: web.Request) -> Endpoint:
    """The endpoint of the path, if the caller may call it: 404, 410 or 403 otherwise."""
    endpoints, slug = request.app[PUBLISHED].endpoints, request.match_info["slug"]
    if slug not in endpoints:
        match = nearest(slug, endpoints)
        hint = f"; did you mean {match!r}?" if match else ""
        raise Refused(404, "unknown_endpoint", f"There is no endpoint {slug!r}{hint}", nearest=match)
    endpoint, standing = endpoints[slug], request[CALLER].standing
    if endpoint.manifest.retired:
        raise Refused(410, "retired", f"{slug} was retired and is no longer served")
    if standing is not None and not _may_call(standing, endpoint):
        raise Refused(403, "forbidden", f"This key may not call {slug}")
    return endpoint


def _may_call(standing: Account, endpoint: Endpoint) -> bool:
    callers = endpoint.manifest.callers
    is_listed = callers is None or standing.name in callers or standing.id in callers
    return is_listed and (standing.endpoints is None or endpoint.slug in standing.endpoints)


def take_token(request: web.Request) -> None:
    """Count one call against the caller's rate; 429 where it is used up."""
    published, caller = request.app[PUBLISHED], request[CALLER]
    standing = caller.standing
    own = standing.requests_per_minute if standing is not None else published.local_per_minute
    taken = published.buckets.take(caller.owner, own if own is not None else published.per_minute)
    request[CALLER] = replace(caller, taken=taken)
    if not taken.is_allowed:
        wait_s = math.ceil(taken.wait_s)
        headers = rate_headers(taken, published.clock()) | {"Retry-After": str(wait_s)}
        message = f"Rate limit reached: try again in {wait_s} s"
        raise Refused(429, "rate_limited", message, headers=headers, retry_after=wait_s)


def rate_headers(taken: Taken, now: float) -> dict[str, str]:
    """What is left of the rate, and when all of it is there again."""
    reset = datetime.fromtimestamp(now + min(taken.full_s, LONGEST_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"x-rate-limit-remaining": str(taken.remaining), "x-rate-limit-reset-at-utc": reset}
