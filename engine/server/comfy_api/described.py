"""What `/api/v2` takes and gives, as OpenAPI 3.0 writes it: held to real answers by tests/server/test_described.py."""

from collections.abc import Mapping
from typing import Any

from sigmagraph.engine.server.comfy_api.job_json import KINDS, STATUSES

__all__ = ["OPERATIONS", "SCHEMAS"]

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
SPAN: Json = {"type": "integer", "minimum": 0}
MOMENT: Json = {"type": "string", "format": "date-time"}
DIGEST: Json = {"type": "string", "pattern": "^blake3:[0-9a-f]{64}$"}
BYTES: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _record(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def _maybe(schema: Json) -> Json:
    return {"nullable": True, "allOf": [schema]} if "$ref" in schema else {**schema, "nullable": True}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


LABELS: Json = {"type": "object", "additionalProperties": TEXT}
STATUS: Json = {"type": "string", "enum": sorted({*STATUSES.values(), "canceling"})}
JOB: Mapping[str, Json] = {
    "id": TEXT,
    "status": STATUS,
    "created_at": MOMENT,
    "started_at": _maybe(MOMENT),
    "completed_at": _maybe(MOMENT),
    "expires_at": MOMENT,
    "queue_position": {**WHOLE, "nullable": True, "description": "among the caller's own, from 1"},
    "progress": _maybe(_ref("ComfyProgress")),
    "outputs": _list(_ref("ComfyOutput")),
    "error": _maybe(_ref("ComfyJobError")),
    "metrics": _record({"queue_ms": _maybe(SPAN), "execution_ms": _maybe(SPAN)}),
    "urls": _record({"self": TEXT, "events": TEXT, "cancel": TEXT}),
}
ASSET: Mapping[str, Json] = {
    "id": TEXT,
    "hash": {**DIGEST, "nullable": True, "description": "null where there are no bytes to read"},
    "size_bytes": WHOLE,
    "content_type": TEXT,
    "file_path": TEXT,
    "created_at": MOMENT,
    "url": TEXT,
    "url_expires_at": MOMENT,
}
SCHEMAS: Json = {
    "ComfyJob": _record(
        JOB,
        {
            "metadata": {"oneOf": [TEXT, LABELS]},
            "priority": WHOLE,
            "create_time": {**MOMENT, "description": "in lists"},
            "update_time": {**MOMENT, "description": "in lists"},
        },
    ),
    "ComfyJobs": _record({"jobs": _list(_ref("ComfyJob")), "truncated": {"type": "boolean"}}, {"next_cursor": TEXT}),
    "ComfyProgress": _record(
        {"value": {"type": "number", "minimum": 0, "maximum": 1}, "nodes_done": WHOLE, "nodes_total": WHOLE},
        {"current_node": TEXT, "current_node_class": _maybe(TEXT), "step": WHOLE, "steps": WHOLE, "message": TEXT},
    ),
    "ComfyOutput": _record(
        {
            "node_id": TEXT,
            "name": TEXT,
            "type": {"type": "string", "enum": sorted({*KINDS.values(), "file"})},
            "content_type": TEXT,
            "size_bytes": WHOLE,
            "id": TEXT,
            "hash": {**DIGEST, "nullable": True, "description": "null here; GET /api/v2/assets/{id} computes it"},
            "url": TEXT,
            "url_expires_at": MOMENT,
            "job_id": TEXT,
        }
    ),
    "ComfyJobError": _record(
        {"code": TEXT, "message": TEXT, "node_id": _maybe(TEXT), "class_type": _maybe(TEXT), "traceback": _maybe(TEXT)}
    ),
    "ComfyAsset": _record(
        ASSET, {"expires_at": _maybe(MOMENT), "created_new": {"type": "boolean"}, "job_id": _maybe(TEXT)}
    ),
    "ComfyRefusal": _record({"error": _record({"code": TEXT, "message": TEXT}, {"details": {"type": "object"}})}),
}


def _told(schema: Json, status: int = 200, said: str = "Done", **more: str) -> Json:
    """The answers of an operation: what it is for, and a refusal."""
    shown = {"application/json": {"schema": schema}}
    answers = {str(status): {"description": said, "content": shown}}
    answers |= {code.removeprefix("s"): {"description": words, "content": shown} for code, words in more.items()}
    return answers | {"default": REFUSED}


def _given(place: str, name: str, schema: Json, said: str, **more: Any) -> Json:
    return {"in": place, "name": name, "schema": schema, "description": said, **more}


REFUSED: Json = {
    "description": "Refused, with the reason",
    "content": {"application/json": {"schema": _ref("ComfyRefusal")}},
}
WORKFLOW = _record({"workflow": {"type": "object"}, "format": {"type": "string", "enum": ["api", "save"]}})
ONCE = _given("header", "Idempotency-Key", {**TEXT, "minLength": 1, "maxLength": 255}, "for one job; used again: 422")
STREAM: Json = {"text/event-stream": {"schema": TEXT}}
OPERATIONS: Mapping[str, Json] = {
    "GET /api/v2/health": {"responses": _told(_record({"status": {"type": "string", "enum": ["healthy"]}}))},
    "POST /api/v2/jobs": {"parameters": [ONCE], "responses": _told(_ref("ComfyJob"), 201, "The job is on disk")},
    "GET /api/v2/jobs": {
        "parameters": [
            _given("query", "status", TEXT, f"words of {', '.join(STATUS['enum'])}, with commas between"),
            _given("query", "limit", {**WHOLE, "minimum": 1, "maximum": 200, "default": 50}, "jobs of a page"),
            _given("query", "cursor", TEXT, "`next_cursor` of the page before"),
            _given("query", "metadata", LABELS, "metadata[name]=value", style="deepObject", explode=True),
        ],
        "responses": _told(_ref("ComfyJobs")),
    },
    "GET /api/v2/jobs/{id}": {"responses": _told(_ref("ComfyJob"))},
    "GET /api/v2/jobs/{id}/workflow": {
        "parameters": [_given("query", "format", WORKFLOW["properties"]["format"], "api: never the drawing")],
        "responses": _told(WORKFLOW),
    },
    "GET /api/v2/jobs/{id}/events": {
        "parameters": [
            _given("header", "Last-Event-ID", TEXT, "go on behind that event"),
            _given("query", "after", TEXT, "the same"),
        ],
        "responses": {
            "200": {"description": "status, progress, preview and output, to the last", "content": STREAM},
            "default": REFUSED,
        },
    },
    "POST /api/v2/jobs/{id}/cancel": {"responses": _told(_ref("ComfyJob"))},
    "POST /api/v2/assets": {"responses": _told(_ref("ComfyAsset"), 201, "A new content", s200="A known one")},
    "POST /api/v2/assets/from-hash": {"responses": _told(_ref("ComfyAsset"))},
    "POST /api/v2/assets/from-path": {"responses": _told(_ref("ComfyAsset"), 201, "A new content", s200="A known one")},
    "HEAD /api/v2/assets/by-hash/{hash}": {
        "responses": {
            "200": {"description": "The caller has that content"},
            "default": {"description": "Not the caller's, or refused; without a body"},
        }
    },
    "GET /api/v2/assets/{id}": {"responses": _told(_ref("ComfyAsset"))},
    "GET /api/v2/assets/{id}/content": {
        "parameters": [_given("header", "Range", TEXT, "bytes=FIRST-LAST")],
        "responses": {
            "200": {"description": "The bytes", "content": {"*/*": BYTES["application/octet-stream"]}},
            "206": {"description": "A part of them", "content": {"*/*": BYTES["application/octet-stream"]}},
            "304": {"description": "As the caller has them"},
            "416": {"description": "There is no such part"},
            "default": REFUSED,
        },
    },
    "DELETE /api/v2/assets/{id}": {"responses": {"204": {"description": "Gone"}, "default": REFUSED}},
}
