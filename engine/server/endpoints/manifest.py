"""The manifest of one published workflow: what its TOML file may say. Knows no graph, no job and no HTTP."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sigmagraph.engine.errors import EngineError, suggestion, with_article

__all__ = ["BadEndpoint", "Demo", "Manifest", "Parameter", "Price", "Reply", "Role", "Scalar", "read_manifest"]

Scalar = bool | int | float | str
Finite = Annotated[float, Field(allow_inf_nan=False)]
Role = Literal["seed", "width", "height", "steps", "batch", "format", "quality", "base64"]
"""What the server itself does with a parameter: draws the seed, prices the size, encodes the pictures."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
MOST_CREDITS, LONGEST_S = 1e6, 1e8
"""Far beyond every use, and what the job layer can still hold."""
TAKEN = frozenset({"get-user-credits", "requests", "request"})
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


class BadEndpoint(EngineError, ValueError):
    """A manifest that cannot be served; every line names file, field and, where there is one, the node."""

    code = "bad_endpoint"

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class Strict(BaseModel):
    """A part of a manifest: nothing unknown, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


class Parameter(Strict):
    """One field of the request.

    `binds` are node inputs by node title (or id), `"Size.width"`. `choices_of` takes the allowed values from a node's
    own list, `without` those that this graph cannot use. `aliases` maps further accepted values to the ones they mean;
    `names` are further names of the field. `sets` gives, per value, what other parameters become. `round_to` rounds to
    the nearest multiple.
    """

    type: Literal["string", "integer", "number", "boolean"]
    description: str = ""
    required: bool = False
    default: Scalar | None = None
    example: Scalar | None = None
    minimum: int | Finite | None = None
    maximum: int | Finite | None = None
    min_length: int | None = Field(None, ge=0)
    max_length: int | None = Field(None, ge=0)
    enum: list[Scalar] | None = Field(None, min_length=1)
    choices_of: str | None = None
    without: list[Scalar] = []
    aliases: dict[str, Scalar] = {}
    names: list[str] = []
    binds: list[str] = []
    sets: dict[str, dict[str, Scalar]] = {}
    round_to: int | None = Field(None, ge=1)
    role: Role | None = None
    random: int | None = Field(None, description="of a seed: the value that asks for a random one")


class Reply(Strict):
    """What comes back: the pictures of one output node, as JSON or as bytes where the client has no wish."""

    images: str
    default: Literal["json", "image"] = "json"
    format: Literal["jpeg", "png", "webp"] = "png"
    quality: int = Field(95, ge=1, le=100)


class Price(Strict):
    """Credits of one call: a fixed part, and one per megapixel and step."""

    per_call: float = Field(default=0.0, ge=0, le=MOST_CREDITS)
    per_megapixel_step: float = Field(default=0.0, ge=0, le=MOST_CREDITS)


class Demo(Strict):
    """What `serve --demo` binds instead: another graph with the same titles, pictures scaled to what it can do."""

    graph: str
    pixel_scale: float = Field(1.0, gt=0, le=1)


class Manifest(Strict):
    """One endpoint. `weights` says which command brings a file the graph needs; `callers` names keys (none: all)."""

    slug: Slug
    title: str
    graph: str
    description: str = ""
    deadline_s: float = Field(300.0, gt=0, le=LONGEST_S, description="how long the blocking call waits")
    expires_s: float = Field(3600.0, gt=0, le=LONGEST_S, description="a request not begun by then ends as expired")
    retired: bool = False
    callers: list[str] | None = None
    unknown_fields: Literal["refuse", "ignore"] = "refuse"
    parameters: dict[str, Parameter]
    reply: Reply
    price: Price = Price()
    weights: dict[str, str] = {}
    demo: Demo | None = None

    def role(self, role: Role) -> str | None:
        """The name of the parameter that plays a role."""
        return next((name for name, parameter in self.parameters.items() if parameter.role == role), None)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a file; raises `BadEndpoint` with every problem."""
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadEndpoint(path, [f"cannot be read: {error.strerror or error}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadEndpoint(path, [f"is not TOML: {error}"]) from error
    try:
        manifest = Manifest.model_validate(given)
    except ValidationError as error:
        raise BadEndpoint(path, [_line(problem) for problem in error.errors()]) from None
    problems = [
        *_taken(manifest),
        *_roles(manifest),
        *_names(manifest),
        *(line for name in manifest.parameters for line in _parameter(manifest, name)),
    ]
    if problems:
        raise BadEndpoint(path, problems)
    return manifest


def _line(error: Any) -> str:
    """One problem of the file's form, with the field it is about."""
    place = ".".join(str(part) for part in error["loc"] if part not in ("bool", "int", "float", "str"))
    if error["type"] == "extra_forbidden":
        return f"{place}: there is no such field{suggestion(str(error['loc'][-1]), _known(error['loc']))}"
    if error["type"] == "missing":
        return f"{place}: is missing"
    return f"{place}: {error['input']!r}: {error['msg'].lower()}"


def _known(place: tuple[Any, ...]) -> list[str]:
    """The fields that could have been meant at a place."""
    table = place[0] if len(place) > 1 else ""
    models: dict[str, type[BaseModel]] = {"parameters": Parameter, "reply": Reply, "price": Price, "demo": Demo}
    return list(models.get(str(table), Manifest).model_fields)


def _taken(manifest: Manifest) -> list[str]:
    """Paths of this protocol that a slug would hide behind."""
    if manifest.slug in TAKEN:
        return [f"slug: {manifest.slug!r} is a path of the API itself; choose another"]
    return []


def _roles(manifest: Manifest) -> list[str]:
    """A role is played once, and by a parameter of the type it needs."""
    problems = []
    seen: dict[str, str] = {}
    for name, parameter in manifest.parameters.items():
        if parameter.role is None:
            continue
        wanted = {"format": "string", "base64": "boolean"}.get(parameter.role, "integer")
        if parameter.type != wanted:
            problems.append(f"parameters.{name}.type: {parameter.type!r}; the role {parameter.role!r} needs {wanted!r}")
        if parameter.role in seen:
            problems.append(f"parameters.{name}.role: {parameter.role!r} is played by {seen[parameter.role]!r} already")
        seen[parameter.role] = name
    return problems


def _names(manifest: Manifest) -> list[str]:
    """A name in a body means one field."""
    owners = {name: name for name in manifest.parameters}
    problems = []
    for name, parameter in manifest.parameters.items():
        for other in parameter.names:
            if other in owners:
                problems.append(f"parameters.{name}.names: {other!r} is {owners[other]!r} already")
            owners[other] = name
    return problems


def _parameter(manifest: Manifest, name: str) -> list[str]:
    """What contradicts itself within one parameter."""
    parameter, place = manifest.parameters[name], f"parameters.{name}"
    problems = [
        f"{place}.{part}: {value!r} is not {with_article(parameter.type)}"
        for part, value in _values(parameter)
        if not _is(parameter, value)
    ]
    if not parameter.required and parameter.default is None:
        problems.append(f"{place}.default: is missing; give one, or say required = true")
    for value, others in parameter.sets.items():
        unknown = [other for other in others if other not in manifest.parameters]
        problems += [
            f"{place}.sets.{value}: {other!r} is not a parameter{suggestion(other, manifest.parameters)}"
            for other in unknown
        ]
        problems += _set(manifest, f"{place}.sets.{value}", others)
        if parameter.enum is not None and value not in [str(listed) for listed in parameter.enum]:
            problems.append(
                f"{place}.sets.{value}: is not in enum{suggestion(value, [str(e) for e in parameter.enum])}"
            )
    problems += _limits(parameter, place)
    if parameter.enum is not None and parameter.default is not None and parameter.default not in parameter.enum:
        problems.append(f"{place}.default: {parameter.default!r} is not in enum {parameter.enum!r}")
    if parameter.default is not None and _is_outside(parameter, parameter.default):
        problems.append(f"{place}.default: {parameter.default!r} is outside {parameter.minimum} to {parameter.maximum}")
    if parameter.role == "format" and not (parameter.enum and set(parameter.enum) <= {"jpeg", "png", "webp"}):
        problems.append(f"{place}.enum: {parameter.enum!r}; formats are jpeg, png and webp")
    return problems


def _set(manifest: Manifest, place: str, others: Mapping[str, Scalar]) -> list[str]:
    """What one value of `sets` may make of other parameters: only what a caller could have sent."""
    problems = []
    for other, value in others.items():
        target = manifest.parameters.get(other)
        if target is None:
            continue
        if not _is(target, value):
            problems.append(f"{place}.{other}: {value!r} is not {with_article(target.type)}")
        elif _is_outside(target, value):
            problems.append(f"{place}.{other}: {value!r} is outside {target.minimum} to {target.maximum}")
        elif target.enum is not None and value not in target.enum:
            problems.append(f"{place}.{other}: {value!r} is not in enum {target.enum!r}")
    return problems


def _limits(parameter: Parameter, place: str) -> list[str]:
    """Bounds that let nothing through."""
    spans = (
        ("minimum", parameter.minimum, "maximum", parameter.maximum),
        ("min_length", parameter.min_length, "max_length", parameter.max_length),
    )
    return [
        f"{place}.{low_name}: {low} is above {high_name} {high}"
        for low_name, low, high_name, high in spans
        if low is not None and high is not None and low > high
    ]


def _values(parameter: Parameter) -> list[tuple[str, Scalar]]:
    """Every value written in a parameter, with where."""
    found = [("default", parameter.default), ("example", parameter.example)]
    listed = [("enum", value) for value in parameter.enum or ()] + [
        ("aliases", value) for value in parameter.aliases.values()
    ]
    return [(part, value) for part, value in found if value is not None] + listed


def _is(parameter: Parameter, value: Scalar) -> bool:
    """Whether a value is of the parameter's type; a boolean is not a number."""
    return isinstance(value, TYPES[parameter.type]) and (parameter.type == "boolean" or not isinstance(value, bool))


def _is_outside(parameter: Parameter, value: Scalar) -> bool:
    if not isinstance(value, int | float) or value == parameter.random:
        return False
    return (parameter.minimum is not None and value < parameter.minimum) or (
        parameter.maximum is not None and value > parameter.maximum
    )
