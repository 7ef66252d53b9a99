"""What a run was made of, as a digest: two runs of different latents, masks or prompts must not share a recording."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


def fingerprint(*values: object) -> str:
    """Sixteen hex digits over the tensors' bits, the settings and the names of functions within `values`.

    An object that has a `fingerprint` of its own (a model, say) says itself what it is; of others the type counts.
    """
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: object) -> None:
    if isinstance(value, Tensor):
        held = value.detach().to("cpu").contiguous()
        digest.update(f"tensor {held.dtype} {tuple(held.shape)}".encode())
        digest.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(own := getattr(value, "fingerprint", None), str):
        digest.update(f"{own};".encode())
    elif isinstance(value, str | int | float | None):
        digest.update(f"{value!r};".encode())  # parted: 1, 23 is not 12, 3
    elif isinstance(value, Mapping):
        _feed(digest, [part for key in sorted(value, key=str) for part in (str(key), value[key])])
    elif isinstance(value, Sequence):
        digest.update(f"{len(value)} values".encode())
        for part in value:
            _feed(digest, part)
    elif isinstance(value, partial):
        _feed(digest, [value.func, value.args, value.keywords])
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(digest, [type(value).__qualname__, *(getattr(value, one.name) for one in fields(value) if one.compare)])
    else:
        _feed(digest, [getattr(value, "__qualname__", type(value).__qualname__)])
        if (owner := getattr(value, "__self__", None)) is not None:
            _feed(digest, owner)
