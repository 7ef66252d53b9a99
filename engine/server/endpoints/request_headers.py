"""What a submission says in headers, so that every body stays the original's: once only, and whom to tell."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sigmagraph.engine.jobs.job import Idempotency, Webhook
from sigmagraph.engine.jobs.webhooks.standard import SECRET_FORM
from sigmagraph.engine.server.endpoints.values import Fault, shown

__all__ = ["HEADERS", "RequestHeaders", "read_headers"]

KEY, URL, SECRET = "Idempotency-Key", "X-Webhook-Url", "X-Webhook-Secret"


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """One header that may be sent; the pattern is what the server checks and what the OpenAPI document says."""

    name: str
    description: str
    form: str
    pattern: str
    longest: int = 255

    def fault(self, value: str | None) -> Fault | None:
        """What is wrong with a value, if anything."""
        if value is None or (len(value) <= self.longest and re.fullmatch(self.pattern, value)):
            return None
        told, allowed = shown(self.name, value), f"{self.form}, at most {self.longest} characters"
        return Fault("bad_header", "", f"{self.name}: {told!r} is not allowed; expected {allowed}", told, allowed)

    def parameter(self) -> dict[str, Any]:
        """The same for the OpenAPI document."""
        schema = {"type": "string", "maxLength": self.longest, "pattern": self.pattern}
        return {"name": self.name, "in": "header", "required": False, "description": self.description, "schema": schema}


TEXT = r"^[!-~]([ -~]*[!-~])?$"
B64 = "[A-Za-z0-9+/]"
WHSEC = rf"^whsec_(({B64}{{4}}){{8,21}}({B64}{{2}}==)?|({B64}{{4}}){{8,20}}{B64}{{3}}=)$"  # 24 to 64 bytes
ADDRESS = r"^https?://[!-~]+$"
RULES = (
    HeaderRule(KEY, "the same key and body make one request, however often sent", "printable ASCII", TEXT),
    HeaderRule(URL, "where the end is told, by a POST", "an http or https address", ADDRESS, 2048),
    HeaderRule(SECRET, "signs what is told, as Standard Webhooks 1 says", SECRET_FORM, WHSEC, 94),
)
HEADERS = tuple(rule.parameter() for rule in RULES)
"""OpenAPI parameters of every call that submits."""


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """What the headers asked for, or what is wrong with them."""

    idempotency: Idempotency | None = None
    webhook: Webhook | None = None
    faults: Sequence[Fault] = ()


def read_headers(request: web.Request, slug: str, body: bytes) -> RequestHeaders:
    """The headers of a call; an idempotency key that comes again for another endpoint is a conflict."""
    faults = [fault for rule in RULES if (fault := rule.fault(request.headers.get(rule.name))) is not None]
    if faults:
        return RequestHeaders(faults=faults)
    key, url = request.headers.get(KEY), request.headers.get(URL)
    idempotency = Idempotency.of(key, slug.encode() + b"\n" + body) if key is not None else None
    return RequestHeaders(idempotency, Webhook(url, request.headers.get(SECRET, "")) if url is not None else None)
