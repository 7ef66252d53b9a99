"""How a webhook is written and signed: Standard Webhooks 1.x (standardwebhooks.com), checked with its own verifier."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.json_text import compact

__all__ = ["SECRET_FORM", "payload", "signature", "signing_key"]

PREFIX = "whsec_"
LEAST, MOST = 24, 64
SECRET_FORM = f"{PREFIX} and {LEAST} to {MOST} random bytes in base64"


def signing_key(secret: str) -> bytes:
    """The bytes that a secret stands for; `BadValue` where it is not of the standard's form."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not LEAST <= len(key) <= MOST:
        raise BadValue("webhook secret", secret, SECRET_FORM)
    return key


def signature(secret: str, delivery_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of id, time and body: an old body cannot be sent again under a new time."""
    message = f"{delivery_id}.{timestamp}.".encode() + body
    digest = hmac.new(signing_key(secret), message, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def payload(delivery_id: str, state: str, ended_at: float, told: Mapping[str, Any]) -> bytes:
    """The body of every try: what happened and when it did, and the job in its protocol's own words."""
    moment = datetime.fromtimestamp(ended_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"id": delivery_id, "type": f"job.{state}", "timestamp": moment, "data": told}
    return compact(body).encode()
