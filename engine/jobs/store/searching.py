"""Finding jobs by what their request says: words anywhere, or the value of an input of a node."""

import json
import re
from collections.abc import Mapping

from sqlalchemy import ColumnElement, Text, and_, func, type_coerce

from sigmagraph.engine.jobs.store.tables import jobs

__all__ = ["says"]

REQUEST = func.lower(type_coerce(jobs.c.request, Text))
REVISION = '(@[^"]*)?'
FILES = "(ckpt|unet|lora|vae|clip|control_net|model|gguf|diffusion)_?(name|path)?[0-9]?"
PATTERNS: Mapping[str, str] = {
    "sampler": f'"sampler_name":"{{}}{REVISION}"',
    "schedule": f'"scheduler":"{{}}{REVISION}"',
    "model": f'"{FILES}":"[^"]*{{}}',
    "seed": '"(noise_)?seed":{}[,}}]',
}
"""Where a value stands in the request's JSON, in small letters; both databases read these alike."""


def says(text: str, fields: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Conditions on a job's request. The pattern is asked only of what holds the words at all."""
    found = [_holds(text)] if text else []
    for name, value in fields.items():
        pattern = PATTERNS[name].format(re.escape(_written(value)))
        found.append(and_(_holds(value), REQUEST.regexp_match(pattern)))
    return found


def _holds(text: str) -> ColumnElement[bool]:
    return REQUEST.contains(_written(text), autoescape=True)


def _written(text: str) -> str:
    """As the column has it."""
    return json.dumps(text)[1:-1].lower()
