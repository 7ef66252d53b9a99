"""The OpenAPI document: from the manifests, the table of paths and the handlers' own sentences. Pure."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from sigmagraph.engine.server.endpoints.guard import RoutePolicy
from sigmagraph.engine.server.endpoints.manifest import Parameter, Scalar
from sigmagraph.engine.server.endpoints.request_headers import HEADERS
from sigmagraph.engine.server.endpoints.schemas import ERROR, SCHEMAS

__all__ = ["document"]

Json = dict[str, Any]
SUBMITTING = (400, 401, 403, 404, 406, 409, 410, 413, 429, 500, 502)
READING = (401, 403, 404)
FAILING: Mapping[str, tuple[int, ...]] = {
    "/v1/{slug}": (*SUBMITTING, 422, 504),
    "/v2/{slug}": SUBMITTING,
    "/workflows/{slug}": SUBMITTING,
    "/outputs/{id}/{name}": (404,),
    "/openapi.json": (),
}
ANSWERS: Mapping[str, str] = {
    "/v1/{slug}": "Images",
    "/v2/{slug}": "Accepted",
    "/workflows/{slug}": "AcceptedFlow",
    "/v1/requests/{id}": "Request",
    "/v2/requests/{id}": "Request",
    "/v2/requests/{id}/status": "Request",
    "/v2/requests/{id}/cancel": "Cancelled",
    "/workflows/request/{id}": "Flow",
    "/v1/get-user-credits": "Credits",
}
REASONS = {
    400: "Fields that cannot be used, all of them",
    401: "No key, or one that is not known",
    403: "The key may not do this",
    404: "Not there, expired, or another key's",
    406: "Not JSON, or not enough credits",
    409: "The idempotency key belongs to another request",
    410: "The endpoint was retired",
    413: "The body is too large",
    422: "The request ran and failed, or was cancelled",
    429: "Too many calls; Retry-After says when to come back",
    500: "The run failed; nothing was charged",
    502: "No worker can take the request",
    504: "Not done within the deadline; the request goes on",
}
IMAGES = ("image/jpeg", "image/png", "image/webp")


def document(
    paths: Mapping[str, Mapping[str, RoutePolicy]],
    endpoints: Mapping[str, Endpoint],
    allowed: Mapping[str, Mapping[str, Sequence[Scalar]]],
    server: str,
    version: str,
) -> Json:
    """The document. `allowed` are the values of lists per endpoint and parameter, as far as they are known."""
    served = {slug: published for slug, published in endpoints.items() if not published.manifest.retired}
    inputs = {f"input.{slug}": body_schema(published, allowed.get(slug, {})) for slug, published in served.items()}
    found: Json = {}
    for path, policies in paths.items():
        for slug, endpoint in served.items() if "{slug}" in path else ((None, None),):
            place = path.replace("{slug}", slug) if slug is not None else path
            found[place] = {verb.lower(): _operation(path, policy, endpoint) for verb, policy in policies.items()}
    return {
        "openapi": "3.0.3",
        "info": {"title": "sigmagraph", "version": version, "description": DESCRIPTION},
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "paths": found,
        "components": {
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}},
            "schemas": SCHEMAS | inputs,
        },
    }


DESCRIPTION = (
    "Saved workflow graphs as an HTTP API, and all else that this server answers. "
    "Of the published workflows nothing but a 200 with pictures is charged."
)


def body_schema(endpoint: Endpoint, allowed: Mapping[str, Sequence[Scalar]]) -> Json:
    """The body of an endpoint's calls."""
    manifest = endpoint.manifest
    fields = {name: _field(parameter, allowed.get(name)) for name, parameter in manifest.parameters.items()}
    fields |= {other: fields[name] for name, parameter in manifest.parameters.items() for other in parameter.names}
    required = [name for name, parameter in manifest.parameters.items() if parameter.required and not parameter.names]
    schema: Json = {"type": "object", "title": manifest.title, "properties": fields}
    schema["additionalProperties"] = manifest.unknown_fields == "ignore"
    return schema | ({"required": required} if required else {})


def _field(parameter: Parameter, allowed: Sequence[Scalar] | None) -> Json:
    """One field; what is accepted and what is shown are the same."""
    schema: Json = {"type": parameter.type}
    if parameter.type == "boolean":
        schema = {"oneOf": [{"type": "boolean"}, {"type": "integer", "enum": [0, 1]}]}
    if allowed:
        schema["enum"] = [*allowed, *(name for name in parameter.aliases if name not in allowed)]
    elif parameter.type == "string":
        limits = {"minLength": parameter.min_length, "maxLength": parameter.max_length}
        schema |= {name: value for name, value in limits.items() if value is not None}
        schema |= {"pattern": r"\S"} if parameter.min_length else {}
    elif parameter.type in ("integer", "number"):
        low, random = parameter.minimum, parameter.random
        low = low if low is None or random is None else min(low, random)
        schema |= {
            name: limit for name, limit in (("minimum", low), ("maximum", parameter.maximum)) if limit is not None
        }
    facts = {"description": parameter.description, "default": parameter.default, "example": parameter.example}
    return schema | {name: value for name, value in facts.items() if value not in (None, "")}


def _operation(path: str, policy: RoutePolicy, endpoint: Endpoint | None) -> Json:
    text = inspect.getdoc(policy.handler) or ""
    first = text.partition("\n")[0]
    summary = (first.partition(": ")[2] if first.startswith("`") else first).replace("`", "").rstrip(".")
    operation: Json = {"summary": summary[:1].upper() + summary[1:], "tags": [path.split("/")[1]]}
    parameters = [_path_parameter(name) for name in ("id", "name") if f"{{{name}}}" in path]
    if path.startswith("/outputs"):
        parameters += [_query_parameter("expires", "integer"), _query_parameter("signature", "string")]
    if endpoint is not None:
        operation["summary"] = f"{endpoint.manifest.title}: {summary}"
        operation["description"] = endpoint.manifest.description
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(f"input.{endpoint.slug}"), "example": _example(endpoint)}},
        }
        parameters += HEADERS
    operation |= {"parameters": parameters} if parameters else {}
    operation |= {"security": []} if policy.scope is None else {}
    return operation | {"responses": _responses(path)}


def _example(endpoint: Endpoint) -> Json:
    """A call that works: what has to be given, and what the manifest shows an example of."""
    shown = {
        name: parameter.example if parameter.example is not None else parameter.default
        for name, parameter in _shown(endpoint)
    }
    return {name: value for name, value in shown.items() if value is not None}


def _shown(endpoint: Endpoint) -> Sequence[tuple[str, Parameter]]:
    given = endpoint.manifest.parameters.items()
    return [(name, parameter) for name, parameter in given if parameter.required or parameter.example is not None]


def _responses(path: str) -> Json:
    failing = FAILING.get(path, READING)
    answer = ANSWERS.get(path)
    responses: Json = {"200": {"description": "Done", "content": _content(path, answer)}}
    if answer == "Request":
        responses["422"] = {"description": REASONS[422], "content": {"application/json": {"schema": _ref("Request")}}}
    for status in failing:
        content = {"application/json": {"schema": _ref(ERROR)}}
        responses[str(status)] = {"description": REASONS[status], "content": content}
    return responses


def _content(path: str, answer: str | None) -> Json:
    binary = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGES}
    if path.startswith("/outputs"):
        return binary
    if path.endswith("/events"):
        return {"text/event-stream": {"schema": _ref("Event")}}
    content: Json = {"application/json": {"schema": _ref(answer) if answer else {"type": "object"}}}
    return binary | content if path == "/v1/{slug}" else content  # the first is what the page asks for: a picture


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(name: str, kind: str) -> Json:
    return {"name": name, "in": "query", "required": True, "schema": {"type": kind}}
