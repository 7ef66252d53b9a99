"""`POST /lab/plan`: a workflow and what to vary become the graphs of cells, their levels and their cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.sweep import Sweep, find_sweep
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.server.access.auth import require_any_graph
from sigmagraph.engine.server.context import JOBS, reply
from sigmagraph.engine.server.pages_inspect import read_any_workflow
from sigmagraph.engine.server.request_fields import RequestFields, changed, declarations, read_request_fields
from sigmagraph.engine.server.unpriced import levels_told

__all__ = ["plan"]

MOST_LISTED = 64
FINER = 8  # the reference has this many times the most steps, as in `sigmagraph compare`
DEFAULT_REFERENCE = "heun/sgm_uniform"


async def plan(request: web.Request) -> web.Response:
    """Levels, evaluations and graphs of every combination of samplers, schedules and step counts; nothing is sampled.

    The workflow comes as for `POST /inspect`, with `set` as for `POST /replay`. `samplers`, `schedules` and `steps` are
    lists (absent: what the workflow says), `reference` is SAMPLER/SCHEDULE[/STEPS]. The answer has `cell` and `film`,
    graphs in API form (`film` is null where the sampler is not a KSampler), the id of the `sampler` in them, `values`
    (its inputs), `choices`, `levels` (a row per combination) and `reference` (the row of that run).
    """
    require_any_graph(request)
    incoming = await read_request_fields(request)
    known = await declarations(request)
    workflow, _ = await read_any_workflow(request, incoming, known)
    workflow = changed(workflow, incoming.fields.get("set"), await request.app[JOBS].nodes())
    sweep = find_sweep(workflow)
    asked = {name: _list(incoming, name, sweep.values[written]) for name, written in LISTS.items()}
    reference = _reference(str(incoming.fields.get("reference") or DEFAULT_REFERENCE), asked["steps"])
    one = {
        "samplers": [reference["sampler_name"]],
        "schedules": [reference["scheduler"]],
        "steps": [reference["steps"]],
    }
    rows, [exact] = await levels_told(request, known, [_levels(sweep, asked), _levels(sweep, one)])
    film = sweep.film()
    answer = {
        "cell": sweep.cell(reference).prompt(),
        "film": film.prompt() if film is not None else None,
        "sampler": sweep.sampler,
        "seed_name": sweep.seed_name,
        "values": sweep.values,
        "choices": _choices(known.get(workflow.nodes[sweep.sampler].class_type, {})),
        "levels": rows,
        "reference": exact,
    }
    return reply(answer)


LISTS = {"samplers": "sampler_name", "schedules": "scheduler", "steps": "steps"}


def _levels(sweep: Sweep, lists: Mapping[str, Sequence[Any]]) -> Workflow:
    """The graph that tells a row for each combination."""
    return sweep.levels(**{name: ",".join(map(str, words)) for name, words in lists.items()})


def _list(incoming: RequestFields, name: str, own: Any) -> list[str]:
    """The words of a field; without it the workflow's own value."""
    value = incoming.fields.get(name)
    words = [own] if value is None else value
    is_list = isinstance(words, list) and 0 < len(words) <= MOST_LISTED
    if not is_list or not all(_is_word(word) for word in words):
        raise BadValue(name, value, f"a list of 1 to {MOST_LISTED} names or numbers")
    return [str(word) for word in words]


def _is_word(word: Any) -> bool:
    """A name or a number; a comma would be two."""
    return (isinstance(word, str) and "," not in word and bool(word.strip())) or type(word) is int


def _reference(text: str, steps: Sequence[str]) -> dict[str, Any]:
    """SAMPLER/SCHEDULE[/STEPS] as inputs of a sampler; without a number it has eight times the most steps asked for."""
    sampler, _, rest = text.partition("/")
    schedule, _, count = rest.partition("/")
    if not sampler or not schedule or "," in text or (count and not count.isdecimal()):
        raise BadValue("reference", text, "SAMPLER/SCHEDULE or SAMPLER/SCHEDULE/STEPS")
    most = max((int(word[:9]) for word in steps if word.isdecimal()), default=1)  # the worker refuses longer ones
    return {"sampler_name": sampler, "scheduler": schedule, "steps": int(count[:9]) if count else FINER * most}


def _choices(declaration: Mapping[str, Any]) -> dict[str, Any]:
    """The samplers and schedules that the node takes."""
    required = declaration.get("input", {}).get("required", {})
    return {name: _options(required.get(written)) for name, written in LISTS.items() if name != "steps"}


def _options(declared: Any) -> list[Any]:
    """The entries of a combo, in either of its two forms."""
    if not isinstance(declared, list) or not declared:
        return []
    if isinstance(declared[0], list):
        return declared[0]
    more = declared[1] if len(declared) > 1 and isinstance(declared[1], dict) else {}
    return list(more.get("options", []))
