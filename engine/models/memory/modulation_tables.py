"""What a transformer makes of noise level and text before it looks at the picture, made once for a whole run.

The modulations (a third of SD3.5 Large's weights) depend on the timestep and the pooled text alone, the projected
tokens on the text alone. They are made when first asked about, for the levels that the run announced as well; then the
weights are not needed until another prompt or schedule comes, and may stay in host memory.

Glossary: a column is one row of pooled text at one timestep, [K, 1, D]; `told` answers from columns.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sigmagraph.engine.models.arch.mmdit import Beforehand, MMDiT, TextAt
from sigmagraph.engine.models.files.read import StoredTensor

MODULATION = ".adaLN_modulation."
MOST_COLUMNS = 192  # kept: 25 guided steps of three jobs; of SD3.5 Large 0.43 GB
MOST_AT_ONCE = 64  # rows of every product, filled up with zeros: so no column depends on which others are made with it
MOST_TEXTS = 16


_AHEAD: deque[tuple[float, ...]] = deque(maxlen=32)


def expect(timesteps: Iterable[float]) -> None:
    """A run is going to ask about these, in this order. Only a hint: what is asked about beside them is made too."""
    coming = tuple(timesteps)
    if coming not in _AHEAD:
        _AHEAD.append(coming)


class Tables:
    """The columns and projected tokens of one network. `sources`: modulation weights that are not in the network."""

    def __init__(self, sources: Mapping[str, StoredTensor] | None = None) -> None:
        self._sources = sources or {}
        self._columns: OrderedDict[tuple[float, int], tuple[Tensor, Tensor]] = OrderedDict()  # with their pooled text
        self._tokens: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()  # with their context

    def told(self, network: MMDiT, asked: Sequence[TextAt], beside: Sequence[TextAt] = ()) -> Beforehand:
        """What the network is to be told for these rows, one text after another; `beside` are asked about next."""
        missing = [one for one in (*asked, *beside) if (one.timestep, id(one.pooled)) not in self._columns]
        found = {key: self._columns[key][1] for one in asked if (key := _key(one)) in self._columns}
        if missing:
            found |= self._made(network, missing)
        columns = [_repeated(found[_key(one)], one.rows, 1) for one in asked]
        tokens = [_repeated(self._projected(network, one.context), one.rows, 0) for one in asked]
        return Beforehand(torch.cat(columns, dim=1), torch.cat(tokens))

    def _made(self, network: MMDiT, missing: Sequence[TextAt]) -> dict[tuple[float, int], Tensor]:
        texts = {id(one.pooled): one.pooled for one in missing}
        rows = sum(map(len, texts.values()))
        wanted = dict.fromkeys(key for one in missing for key in [_key(one)])
        for timestep in _coming({one.timestep for one in missing}):
            if len(wanted) + len(texts) > max(MOST_AT_ONCE // max(rows // len(texts), 1), len(texts)):
                break
            wanted |= dict.fromkeys((timestep, text) for text in texts)
        keys = [key for key in wanted if key not in self._columns]
        pooled = torch.cat([texts[text] for _, text in keys])
        device = pooled.device
        timesteps = torch.cat([torch.full((len(texts[text]),), at, device=device) for at, text in keys])
        while self._columns and len(self._columns) + len(keys) > MOST_COLUMNS:
            self._columns.popitem(last=False)
        table = self._table(network, timesteps, pooled)
        parts = table.split([len(texts[text]) for _, text in keys], dim=1)
        made = dict(zip(keys, parts, strict=True))
        self._columns |= {key: (texts[key[1]], part) for key, part in made.items()}
        return made

    def _table(self, network: MMDiT, timesteps: Tensor, pooled: Tensor) -> Tensor:
        """[K, R, D] for timesteps [R] and pooled [R, P]."""
        spare = -len(pooled) % MOST_AT_ONCE
        pieces = F.pad(timesteps, (0, spare)).split(MOST_AT_ONCE), F.pad(pooled, (0, 0, 0, spare)).split(MOST_AT_ONCE)
        made = [self._modulations(network, network.condition(*piece)) for piece in zip(*pieces, strict=True)]
        return (torch.cat(made, dim=1) if len(made) > 1 else made[0])[:, : len(pooled)]

    def _modulations(self, network: MMDiT, condition: Tensor) -> Tensor:
        """[K, R, D] for conditions [R, D]."""
        places = list(network.modulations)
        width = condition.shape[-1]
        table = condition.new_empty(sum(parts for _, _, parts in places), len(condition), width)
        at = 0
        for name, module, parts in places:
            given = self._modulated(name, module, condition).unflatten(-1, (parts, width))
            table[at : at + parts].copy_(given.movedim(1, 0))
            at += parts
        return table

    def _modulated(self, name: str, module: nn.Sequential, condition: Tensor) -> Tensor:
        if f"{name}.1.weight" not in self._sources:
            given: Tensor = module(condition)
            return given
        weight, bias = (self._sources[f"{name}.1.{leaf}"].on(condition.device) for leaf in ("weight", "bias"))
        return F.linear(F.silu(condition), weight.to(condition.dtype), bias.to(condition.dtype))

    def _projected(self, network: MMDiT, context: Tensor) -> Tensor:
        known = self._tokens.get(id(context))
        if known is None:
            known = context, network.context_embedder(context.to(network.x_embedder.proj.weight.dtype))
            self._tokens[id(context)] = known
            while len(self._tokens) > MOST_TEXTS:
                self._tokens.popitem(last=False)
        return known[1]


def _key(asked: TextAt) -> tuple[float, int]:
    return asked.timestep, id(asked.pooled)


def _coming(now: set[float]) -> Iterable[float]:
    """The timesteps that runs announced behind these, those of the newest run first."""
    for announced in reversed(_AHEAD):
        places = [announced.index(one) for one in now if one in announced]
        if places:
            yield from announced[min(places) + 1 :]
            return


def _repeated(tensor: Tensor, rows: int, dim: int) -> Tensor:
    """Rows along `dim` in turn, `rows` of them."""
    count = tensor.shape[dim]
    if count == rows:
        return tensor
    if count == 1:
        return tensor.expand(*(rows if at == dim else -1 for at in range(tensor.ndim)))
    return torch.cat([tensor] * -(-rows // count), dim=dim).narrow(dim, 0, rows)
