"""The shapes of this protocol's answers, as OpenAPI 3.0 writes them: what `job_json.py` and `refusal.py` make."""

from typing import Any

__all__ = ["ERROR", "SCHEMAS"]

Json = dict[str, Any]
ERROR = "Error"
TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
MAYBE_NUMBER: Json = {"type": "number", "nullable": True}
URL: Json = {"type": "string", "format": "uri"}
STATUS: Json = {"type": "string", "enum": ["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]}
OUTPUT: Json = {"oneOf": [TEXT, {"type": "array", "items": TEXT}], "description": "one picture, or a list of them"}


def _record(required: tuple[str, ...], **fields: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": fields}


FAULT = _record(
    ("code", "pointer", "message"),
    code=TEXT,
    pointer={"type": "string", "description": "JSON pointer to the field (RFC 6901)"},
    message=TEXT,
    value={"nullable": True, "description": "what was sent"},
    allowed={"nullable": True, "description": "what is allowed: a list, bounds, or a type"},
    nearest={"type": "string", "nullable": True, "description": "the allowed value most like it"},
)
METRICS = _record(
    ("queue_time", "total_time", "retry_count"),
    queue_time=NUMBER,
    inference_time=NUMBER,
    total_time=NUMBER,
    retry_count={"type": "integer"},
    cost=NUMBER,
    remaining_credits=MAYBE_NUMBER,
)
SCHEMAS: Json = {
    "Error": _record(
        ("error", "code"),
        error={"type": "string", "description": "one line for people"},
        code={"type": "string", "description": "one word for programs; never changes"},
        errors={"type": "array", "items": FAULT},
        request_id=TEXT,
    ),
    "Images": _record(
        ("image", "images", "seed", "request_id", "infer_time"),
        image={"type": "string", "description": "the first picture: a URL, or base64"},
        images={"type": "array", "items": TEXT},
        image_url=URL,
        seed={"type": "integer", "nullable": True},
        request_id=TEXT,
        infer_time=NUMBER,
        cost=NUMBER,
        image_format=TEXT,
        metadata={"type": "object"},
        ignored_fields={"type": "array", "items": TEXT},
        note=TEXT,
    ),
    "Accepted": _record(
        ("request_id", "status", "poll_url", "status_url", "response_url"),
        request_id=TEXT,
        status=STATUS,
        poll_url=URL,
        status_url=URL,
        response_url=URL,
        cancel_url=URL,
        events_url=URL,
    ),
    "AcceptedFlow": _record(("request_id", "status", "poll_url"), request_id=TEXT, status=STATUS, poll_url=URL),
    "Request": _record(
        ("status", "request_id", "metrics"),
        status=STATUS,
        request_id=TEXT,
        metrics=METRICS,
        error=TEXT,
        code=TEXT,
        output=OUTPUT,
        seed={"type": "integer", "nullable": True},
        metadata={"type": "object"},
        status_url=URL,
        response_url=URL,
    ),
    "Flow": _record(("status", "request_id"), status=STATUS, request_id=TEXT, output=OUTPUT, error=TEXT, code=TEXT),
    "Cancelled": _record(
        ("status", "request_id"), status=STATUS, request_id=TEXT, cancel_requested={"type": "boolean"}
    ),
    "Event": _record(
        ("id", "event", "data"),
        id={"type": "string", "description": "its number; sent back as Last-Event-ID, the stream goes on after it"},
        event={"type": "string", "description": "what happened: Queued, Started, NodeFinished, Ended, ..."},
        data={"type": "string", "description": "its fields as JSON"},
    ),
    "Credits": _record(("credits",), credits=NUMBER, held=NUMBER, account=TEXT),
}
