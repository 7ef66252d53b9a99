"""`POST /lab/plan`: a workflow and what to vary become the graphs of cells, their levels and their cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.sweep import CACHES, Sweep, cache_node, find_sweep
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.server.access.auth import require_any_graph
from sigmagraph.engine.server.context import JOBS, reply
from sigmagraph.engine.server.pages_inspect import read_any_workflow
from sigmagraph.engine.server.request_fields import RequestFields, changed, declarations, read_request_fields
from sigmagraph.engine.server.unpriced import levels_told

__all__ = ["plan"]

MOST_LISTED = 64
FINER = 8  # the reference has this many times the most steps, as in `sigmagraph compare`
USUAL_STRENGTHS = (0.05, 0.1, 0.2)
STRENGTHS = {"taylorseer": (2, 3, 4)}
DEFAULT_REFERENCE = "heun/sgm_uniform"


async def plan(request: web.Request) -> web.Response:
    """Levels, evaluations and graphs of every combination of samplers, schedules and step counts; nothing is sampled.

    The workflow comes as for `POST /inspect`, with `set` as for `POST /replay`. `samplers`, `schedules` and `steps` are
    lists (absent: what the workflow says), `reference` is SAMPLER/SCHEDULE[/STEPS], `caches` are step caches as
    `sigmagraph compare` takes them. The answer has `cell` and `film`, graphs in API form (`film` is null where the
    sampler is not a KSampler), the id of the `sampler` in them, `values` (its inputs), `choices`, `levels` (a row per
    combination), `reference` (the row of that run) and `caches` (each as a node, but for its model).
    """
    require_any_graph(request)
    incoming = await read_request_fields(request)
    known = await declarations(request)
    workflow, _ = await read_any_workflow(request, incoming, known)
    workflow = changed(workflow, incoming.fields.get("set"), await request.app[JOBS].nodes())
    sweep = find_sweep(workflow)
    asked = {name: _list(incoming, name, sweep.values[written]) for name, written in LISTS.items()}
    reference = _reference(str(incoming.fields.get("reference") or DEFAULT_REFERENCE), asked["steps"])
    caches = [_cache(text, known) for text in _words("caches", incoming.fields.get("caches") or [])]
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
        "caches": caches,
    }
    return reply(answer)


LISTS = {"samplers": "sampler_name", "schedules": "scheduler", "steps": "steps"}


def _levels(sweep: Sweep, lists: Mapping[str, Sequence[Any]]) -> Workflow:
    """The graph that tells a row for each combination."""
    return sweep.levels(**{name: ",".join(map(str, words)) for name, words in lists.items()})


def _list(incoming: RequestFields, name: str, own: Any) -> list[str]:
    """The words of a field; without it the workflow's own value."""
    value = incoming.fields.get(name)
    words = _words(name, [own] if value is None else value)
    if not words:
        raise BadValue(name, value, f"a list of 1 to {MOST_LISTED} names or numbers")
    return words


def _words(name: str, value: Any) -> list[str]:
    """The words of a list, which may be empty."""
    is_list = isinstance(value, list) and len(value) <= MOST_LISTED
    if not is_list or not all(_is_word(word) for word in value):
        shown = f"{len(value)} of them" if isinstance(value, list) and len(value) > MOST_LISTED else value
        raise BadValue(name, shown, f"a list of at most {MOST_LISTED} names or numbers")
    return [str(word) for word in value]


def _cache(text: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """A step cache as a node whose model is still to be linked; what is not said stays as it is declared."""
    class_type, chosen = cache_node(text)
    declared = known.get(class_type, {}).get("input", {}).get("required", {})
    usual = {name: part[1]["default"] for name, part in declared.items() if "default" in (part[1:] or [{}])[0]}
    return {"name": text, "class_type": class_type, "inputs": usual | chosen}


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
    """The samplers and schedules that the node takes, and step caches of some strengths; others may be written."""
    required = declaration.get("input", {}).get("required", {})
    offered = [f"{name}:{number}" for name in CACHES for number in STRENGTHS.get(name, USUAL_STRENGTHS)]
    return {"caches": offered} | {
        name: _options(required.get(written)) for name, written in LISTS.items() if name != "steps"
    }


def _options(declared: Any) -> list[Any]:
    """The entries of a combo, in either of its two forms."""
    if not isinstance(declared, list) or not declared:
        return []
    if isinstance(declared[0], list):
        return declared[0]
    more = declared[1] if len(declared) > 1 and isinstance(declared[1], dict) else {}
    return list(more.get("options", []))
