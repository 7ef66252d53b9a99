"""What the editor asks of `/api/assets`, checked: queries, bodies and forms. Refusals are in pydantic's words."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from sigmagraph.engine.server.comfy_api.refusals import Declined
from sigmagraph.engine.server.transport.request_bodies import json_body

__all__ = ["Change", "Listing", "NewRecord", "Tags", "TagsListing", "body_of", "query_of", "read"]

INPUT = "input"
ELSEWHERE = ("models", "output")
MOST_TAGS, LONGEST_TAG, LONGEST_NAME = 100, 100, 512
T = TypeVar("T", bound=BaseModel)


def _words(value: Any) -> Any:
    """Tags as they come: a list, JSON of one, or words between commas; in small letters, each once."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        return value
    found: list[str] = []
    for each in value:
        found += _parsed(each) if each.strip().startswith("[") else each.split(",")
    return list(dict.fromkeys(word.strip().lower() for word in found if word.strip()))


def _parsed(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON list of strings") from None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("not a JSON list of strings")
    return value


def _object(value: Any) -> Any:
    """An object, or JSON of one."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object") from None


Word = Annotated[str, Field(min_length=1, max_length=LONGEST_TAG)]
Words = Annotated[list[Word], BeforeValidator(_words), Field(max_length=MOST_TAGS)]
Notes = Annotated[dict[str, Any], BeforeValidator(_object)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class Listing(BaseModel):
    """`GET /api/assets`. `after` is the `next_cursor` of the page before."""

    include_tags: Words = []
    exclude_tags: Words = []
    name_contains: str = ""
    metadata_filter: Notes = {}
    limit: int = Field(20, ge=1, le=500)
    offset: int = Field(0, ge=0)
    after: int = Field(0, ge=0)
    sort: Literal["name", "created_at", "updated_at", "size", "last_access_time"] = "created_at"
    order: Literal["asc", "desc"] = "desc"


class TagsListing(BaseModel):
    """`GET /api/tags`."""

    prefix: str = ""
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0)
    order: Literal["count_desc", "name_asc"] = "count_desc"


class Tags(BaseModel):
    """Tags to add or to take away."""

    tags: Annotated[Words, Field(min_length=1)]


class Change(BaseModel):
    """`PUT /api/assets/{id}`."""

    name: Name | None = None
    user_metadata: dict[str, Any] | None = None

    @model_validator(mode="after")
    def says_something(self) -> "Change":
        """One of them has to be there."""
        if self.name is None and self.user_metadata is None:
            raise ValueError("Provide at least one of: name, user_metadata.")
        return self


class NewRecord(BaseModel):
    """What comes with an upload, or with the hash of a content that is here. Only uploads for `input` are taken."""

    name: Name | None = None
    tags: Words = []
    user_metadata: Notes = {}
    hash: str | None = None
    mime_type: Annotated[str, Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def is_for_input(self) -> "NewRecord":
        """The first tag says where a file is to lie."""
        if self.tags and self.tags[0] in ELSEWHERE:
            raise ValueError(f"{self.tags[0]!r} is not a place for uploads here; the first tag is {INPUT!r}")
        if not self.tags or self.tags[0] != INPUT:
            raise ValueError(f"the first tag must be {INPUT!r}")
        return self


def read(kind: type[T], values: Mapping[str, Any], code: str = "INVALID_BODY") -> T:
    """The values, or a 400 that names every one that is wrong."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        raise Declined(400, code, "Validation failed.", errors=errors) from None


def query_of(request: web.Request, kind: type[T]) -> T:
    """The query; a name that comes several times is a list where lists are taken."""
    lists = ("include_tags", "exclude_tags")
    query = request.query
    return read(
        kind, {name: query.getall(name) if name in lists else query[name] for name in query}, code="INVALID_QUERY"
    )


async def body_of(request: web.Request, kind: type[T]) -> T:
    """The JSON body."""
    body = await json_body(request)
    return read(kind, body if isinstance(body, dict) else {})
