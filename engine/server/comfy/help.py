"""`GET /docs/{node}/{locale}.md`: the page of help the editor shows for a node, made from its declaration.

One language, whatever the locale. What comes from a pack's declaration is shown as words, never as markup.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from sigmagraph.engine.server.comfy.object_info import described
from sigmagraph.engine.server.context import JOBS, folders

__all__ = ["help_page", "node_help"]

MOST_CHOICES = 12
SHOWN = 200  # characters of a default
MARKUP = re.compile(r"([\\`*_\[\]<>|#])")
ADVICE = {"deprecated": "Deprecated: other nodes do this now.", "experimental": "Experimental: it may change."}


async def node_help(request: web.Request) -> web.Response:
    """The page; 404 for a class that is not here."""
    nodes, name = await request.app[JOBS].nodes(), request.match_info["node"]
    info = described(nodes, [name], folders(request)).get(name) if name in nodes else None
    if info is None:
        raise web.HTTPNotFound
    return web.Response(text=help_page(info), content_type="text/markdown", charset="utf-8")


def help_page(info: Mapping[str, Any]) -> str:
    """What a node does, takes and gives, as Markdown, from its `/object_info` entry."""
    title, category = info["display_name"] or info["name"], info["category"]
    parts = [f"# {_words(title)}", f"`{info['name']}`, in the menu under {_words(category.replace('/', ' > '))}."]
    parts += [_words(info["description"])] if info.get("description") else []
    parts += [f"**{advice}**" for key, advice in ADVICE.items() if info.get(key)]
    parts += _table("Inputs", ("name", "type", "default", "allowed", ""), list(_inputs(info["input"])))
    parts += _table("Outputs", ("name", "type", ""), list(_outputs(info)))
    return "\n\n".join(parts) + "\n"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A heading and a table; nothing where there are no rows."""
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _inputs(groups: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for group in ("required", "optional"):
        for name, spec in groups.get(group, {}).items():
            options = spec[1] if len(spec) > 1 else {}
            told = _words(options.get("tooltip", ""))
            remark = "Optional. " if group == "optional" else ""
            default = _words(str(options.get("default", ""))[:SHOWN])
            kind = "choice" if isinstance(spec[0], list) else _words(str(spec[0]))
            yield _words(name), kind, default, _allowed(spec[0], options), (remark + told).strip()


def _allowed(kind: Any, options: Mapping[str, Any]) -> str:
    """The range of a number, the choices of a list."""
    choices = kind if isinstance(kind, list) else options.get("options")
    if isinstance(choices, list):
        shown = ", ".join(_words(_key(choice)) for choice in choices[:MOST_CHOICES])
        return shown + (f" and {len(choices) - MOST_CHOICES} more" if len(choices) > MOST_CHOICES else "")
    if "min" in options or "max" in options:
        step = f" in steps of {options['step']}" if "step" in options else ""
        return f"{options.get('min', '')} to {options.get('max', '')}{step}"
    return ""


def _key(choice: Any) -> str:
    """A choice of a list, or of a combo whose choices bring inputs of their own."""
    return str(choice.get("key", "")) if isinstance(choice, Mapping) else str(choice)


def _outputs(info: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    tips = info.get("output_tooltips") or [None] * len(info["output"])
    for name, kind, is_list, tip in zip(
        info["output_name"], info["output"], info["output_is_list"], tips, strict=False
    ):
        kind = "choice" if isinstance(kind, list) else str(kind)
        yield _words(str(name)), _words(kind) + (", a list" if is_list else ""), _words(tip or "")


def _words(text: str) -> str:
    """As words in one line of a table."""
    return MARKUP.sub(r"\\\1", " ".join(str(text).split()))
