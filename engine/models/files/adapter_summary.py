"""What an adapter file is, in words, by its header: kind, rank, what it changes, for which model, trigger words."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sigmagraph.engine.errors import UnknownModel
from sigmagraph.engine.models.files.adapter_keys import ENCODER_PREFIXES
from sigmagraph.engine.models.files.detect import main_dtype
from sigmagraph.engine.models.files.lora import ROLES
from sigmagraph.engine.models.files.read import StoredTensor, open_weights
from sigmagraph.engine.models.spec import OTHER_SIZE, family_of

__all__ = ["AdapterSummary", "summarise_adapter"]

MOST_WORDS = 5
KINDS: tuple[tuple[str, str], ...] = (
    ("up", "LoRA"),
    ("hada_w1_a", "LoHa"),
    ("lokr_w1", "LoKr"),
    ("lokr_w1_a", "LoKr"),
    ("diff", "full differences"),
    ("set_weight", "replacements"),
    ("diff_b", "full differences"),
)
"""A role that only this kind has."""
RANKED = ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")  # their rows are the rank
WIDE = ("down", "hada_w1_b", "diff")  # their columns are the width of what goes in
ATTENTION = re.compile(
    r"(?:x_block|context_block|transformer_blocks[._]\d+)[._]attn2?[._]"
    r"(?:qkv|proj|to_[qkv]|add_[qkv]_proj|to_out[._]0|to_add_out)$"
)
OF_SD3 = re.compile(
    r"joint_blocks[._]\d|(?<!single_)transformer_blocks[._]\d+[._](?:attn2?[._](?:to|add)_|norm1_context|ff_|ff\.)"
)
OTHERS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:double|single)_blocks[._]\d|single_transformer_blocks[._]\d"), "FLUX"),
    (re.compile(r"(?:down|up|input|output|mid(?:dle)?)_blocks?[._]"), "a UNet (SD 1, 2 or XL)"),
)


class AdapterSummary(NamedTuple):
    """`rank`: one number, or the least and the greatest. `changes`: `the diffusion model`, `clip_l` ..."""

    kind: str
    rank: str
    tensors: int
    changes: tuple[str, ...]
    family: str
    precision: str
    trigger_words: tuple[str, ...]

    @property
    def holds(self) -> str:
        """In one line."""
        ranked = f" of rank {self.rank}" if self.rank else ""
        changed = f" for {', '.join(self.changes)}" if self.changes else ""
        words = f"; words: {', '.join(self.trigger_words)}" if self.trigger_words else ""
        return f"{self.kind}{ranked}{changed}, {self.tensors} tensors{words}"


def summarise_adapter(path: Path) -> AdapterSummary:
    """Only the header is read. Raises `UnknownModel` if no tensor has an adapter's name."""
    file = open_weights(path)
    named = [(base, role, stored) for name, stored in file.weights.items() for base, role in _split(name)]
    if not named:
        raise UnknownModel(f"{path}: no tensor is named as an adapter's")
    roles, bases = {role for _, role, _ in named}, {base for base, _, _ in named}
    ranks = sorted({stored.shape[0] for _, role, stored in named if role in RANKED and stored.shape})
    return AdapterSummary(
        kind=" and ".join(_kinds(roles)),
        rank="" if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}",
        tensors=len(file.weights),
        changes=_changes(bases),
        family=_family(bases, named),
        precision=str(main_dtype(file.weights)).removeprefix("torch."),
        trigger_words=_trigger_words(file.metadata),
    )


def _split(name: str) -> list[tuple[str, str]]:
    """Base key and role of a tensor; nothing for a name that is no adapter's."""
    return next(([(name.removesuffix(suffix), role)] for suffix, role in ROLES if name.endswith(suffix)), [])


def _kinds(roles: set[str]) -> list[str]:
    """Each kind in the file once; a file of DoRA has its factors in the form of another."""
    found = list(dict.fromkeys(kind for role, kind in KINDS if role in roles)) or ["an adapter"]
    return ["DoRA", *(kind for kind in found if kind != "LoRA")] if "dora_scale" in roles else found


def _changes(bases: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for base in sorted(bases):
        owners = (name for name, prefixes in ENCODER_PREFIXES.items() if base.startswith(prefixes[0] + prefixes[1]))
        found[next(owners, "the diffusion model")] = None
    return tuple(sorted(found, key=lambda part: part != "the diffusion model"))


def _family(bases: Iterable[str], named: Iterable[tuple[str, str, StoredTensor]]) -> str:
    """Which model it was made for: by names, and by the width that goes into its attention."""
    listed = sorted(bases)
    others = next((family for mark, family in OTHERS if any(mark.search(base) for base in listed)), "")
    if others or not any(OF_SD3.search(base) for base in listed):
        return others
    widths = Counter(
        stored.shape[1]
        for base, role, stored in named
        if role in WIDE and len(stored.shape) >= 2 and ATTENTION.search(base)
    )
    if not widths:
        return "SD3"
    width = widths.most_common(1)[0][0]
    family = family_of(width, 0, any(re.search(r"[._]attn2[._]", base) for base in listed))
    return f"SD3's architecture, width {width}" if family == OTHER_SIZE else family


def _trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """What the trainer says calls it; else the tags that its pictures had most often."""
    phrase = metadata.get("modelspec.trigger_phrase") or metadata.get("ss_trigger_words") or ""
    if phrase.strip():
        return tuple(word.strip() for word in phrase.split(",") if word.strip())[:MOST_WORDS]
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        tags = Counter[str]()
        for counts in folders.values():
            tags.update({str(tag).strip(): int(count) for tag, count in counts.items()})
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return ()
    return tuple(tag for tag, _ in tags.most_common(MOST_WORDS) if tag)
