"""Weight files into other precisions and layouts, tensor by tensor: what each tensor becomes, and the error of it.

Names stay those of the file, but for GGUF, whose readers know one name a tensor. Matrices of blocks are what gets
quantised; norms, biases, tables, embedders, CLIPs and the VAE keep 16 bits or what they have.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, TensorMismatch
from sigmagraph.engine.models.files.fp8 import MARKER, SCALE, are_numbers, multiplied_out
from sigmagraph.engine.models.files.ggml import FORMATS, Format
from sigmagraph.engine.models.files.quantise import SHRINK
from sigmagraph.engine.models.files.read import FileSlice, StoredTensor, Weights, bring, files_of, is_quantised
from sigmagraph.engine.models.files.write import Outgoing, Room, in_pieces

PIECE = 1 << 20  # elements in work at once: bounds memory
SHRUNK = 1 << 18  # those that blocks are made of: several passes over them find them in a cache
COPIED = 1 << 20  # bytes read at once of what stays as it is
SAMPLE = 1 << 16  # elements of a tensor whose error is looked at
SMALL = 1024  # elements: below, GGUF files hold float32
DENSE: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FP8 = torch.float8_e4m3fn
WRITTEN = {f"gguf:{name}": next(form for form in FORMATS.values() if form.name == name) for name in SHRINK}
TARGETS = (*DENSE, "fp8_scaled", *WRITTEN)
# matrices of the transformer's and T5's blocks, in every layout's names
BLOCK_MATRIX = re.compile(r"(?:^|\.)(?:joint_blocks|transformer_blocks|encoder\.block)\.\d+\..+\.weight$")
NOT_A_MATRIX = ("relative_attention_bias.weight",)
WAY_OUT = "bf16 holds such numbers"


@dataclass(slots=True)
class Loss:
    """How far rounding took what was written from what was read, over the first elements of every rounded tensor."""

    squares: float = 0.0
    differences: float = 0.0
    worst: float = 0.0
    where: str = ""

    def note(self, name: str, before: Tensor, after: Tensor) -> None:
        """Both as many elements in one order, any precision."""
        exact = before.reshape(-1)[:SAMPLE].float()
        after = after.reshape(-1)[:SAMPLE].float()
        square, difference = float(exact.square().sum()), float((after - exact).square().sum())
        if math.isfinite(difference) and square:
            self.squares, self.differences = self.squares + square, self.differences + difference
            if (share := math.sqrt(difference / square)) > self.worst:
                self.worst, self.where = share, name

    @property
    def share(self) -> float:
        """Root mean square of the error over that of the weights."""
        return math.sqrt(self.differences / self.squares) if self.squares else 0.0


@dataclass(frozen=True, slots=True)
class ConvertTarget:
    """What to convert to. None: every tensor as it is stored."""

    name: str | None
    loss: Loss = field(default_factory=Loss)

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in TARGETS:
            raise BadValue("--to", self.name, "one of " + ", ".join(TARGETS))

    @property
    def form(self) -> Format | None:
        """The GGUF format, if it is one."""
        return WRITTEN.get(self.name or "")

    def tensors(self, weights: Weights) -> list[Outgoing]:
        """What a table of stored tensors becomes."""
        if self.name is None:
            return [kept(name, stored) for name, stored in weights.items()]
        plain = multiplied_out(weights)
        for name, stored in plain.items():
            if is_block_matrix(name, stored) and not are_numbers(stored):
                raise TensorMismatch(
                    f"{name} is stored as {stored.dtype} without a scale: nothing says what it stands for"
                )
        if self.form is not None:
            return [self._in_gguf(name, stored, self.form) for name, stored in plain.items()]
        if self.name in DENSE:
            return [self._cast(name, stored, DENSE[self.name]) for name, stored in plain.items()]
        return list(self._scaled(plain))

    def _cast(self, name: str, stored: StoredTensor, dtype: torch.dtype) -> Outgoing:
        is_number = stored.dtype.is_floating_point or stored.combine is not None
        if not is_number or stored.dtype == torch.float64 or (stored.combine is None and stored.dtype == dtype):
            return kept(name, stored)

        def pieces(room: Room) -> Iterator[Tensor]:
            wide = _scratch(stored)
            for at, piece in enumerate(_read_in_pieces(stored)):
                cast = _cast_into(room(piece.numel(), dtype), piece, wide)
                _require_held(name, piece, cast)
                if at == 0 and piece.dtype != dtype:
                    self.loss.note(name, piece, cast)
                yield cast

        return Outgoing(name, stored.shape, dtype, pieces, ahead=None if _in_file(stored) else partial(bring, stored))

    def _scaled(self, weights: Weights) -> Iterator[Outgoing]:
        markers: set[str] = set()
        for name, stored in weights.items():
            if not is_block_matrix(name, stored):
                yield kept(name, stored) if stored.dtype.itemsize > 1 else self._cast(name, stored, torch.float16)
                continue
            markers.add(_root(name) + MARKER)
            rounding = _Rounding(name, stored, self.loss)
            yield Outgoing(name, stored.shape, FP8, rounding.pieces, ahead=partial(bring, stored))
            yield Outgoing(name.removesuffix(".weight") + SCALE, (), torch.float32, rounding.scales)
        for marker in sorted(markers):
            yield Outgoing(marker, (0,), FP8, lambda _: ())

    def _in_gguf(self, name: str, stored: StoredTensor, form: Format) -> Outgoing:
        is_table = name.endswith("shared.weight")
        fits = len(stored.shape) == 2 and stored.shape[1] % form.size == 0
        if not (fits and (is_table or is_block_matrix(name, stored))):
            is_small = len(stored.shape) < 2 or prod(stored.shape) <= SMALL or name.endswith(NOT_A_MATRIX)
            narrow = stored.dtype if stored.dtype in (torch.bfloat16, torch.float32) else torch.float16
            return self._cast(name, stored, torch.float32 if is_small else narrow)

        def pieces(_: Room) -> Iterator[Tensor]:
            if not prod(stored.shape):
                return
            for at, piece in enumerate(_pieces(stored, stored.read(), SHRUNK)):
                values = piece.float().view(-1, form.size)
                blocks = SHRINK[form.name](values)
                if not _are_finite(_scales(form, blocks)):
                    raise TensorMismatch(f"{name}: infinity, NaN, or more than scales of {form.name} reach; {WAY_OUT}")
                if at == 0:
                    grew = torch.empty_like(values)
                    form.grow(blocks, grew)
                    self.loss.note(name, values, grew)
                yield blocks

        return Outgoing(name, stored.shape, torch.uint8, pieces, form, partial(bring, stored))


def kept(name: str, stored: StoredTensor) -> Outgoing:
    """The tensor in the precision it is stored in; what is in blocks, in float16."""
    slice_ = _in_file(stored)
    if slice_ is None:
        return as_read(name, stored, torch.float16 if is_quantised(stored) else stored.dtype)

    def copied(room: Room) -> Iterator[Tensor]:
        """Read, not mapped, as `_read_in_pieces` does."""
        for at in range(0, stored.stored_bytes, COPIED):
            piece = room(min(COPIED, stored.stored_bytes - at), torch.uint8)
            slice_.read_into(at, piece.numpy().data)
            yield piece

    return Outgoing(name, stored.shape, stored.dtype, copied)


def as_read(name: str, stored: StoredTensor, dtype: torch.dtype) -> Outgoing:
    """The tensor as it reads, in a precision. What float16 cannot hold is a `TensorMismatch`."""

    def pieces(room: Room) -> Iterator[Tensor]:
        for piece in _pieces(stored, stored.read()):
            cast = room(piece.numel(), dtype).copy_(piece)
            _require_held(name, piece, cast)
            yield cast

    return Outgoing(name, stored.shape, dtype, pieces)


def _in_file(stored: StoredTensor) -> FileSlice | None:
    """The bytes in a file that are the tensor as it is; None where it is made of several, or of another kind."""
    return stored.read if stored.combine is None and isinstance(stored.read, FileSlice) else None


def is_block_matrix(name: str, stored: StoredTensor) -> bool:
    """Whether a tensor is a matrix of a block of the transformer or of T5."""
    return len(stored.shape) == 2 and BLOCK_MATRIX.search(name) is not None and not name.endswith(NOT_A_MATRIX)


def _largest(piece: Tensor) -> float:
    """The largest magnitude, by one pass without a copy; float8 has no order in torch. NaN where there is one."""
    if not piece.numel():
        return 0.0
    least, greatest = (piece if piece.dtype.itemsize > 1 else piece.float()).aminmax()
    return max(-float(least), float(greatest))


def _scales(form: Format, blocks: Tensor) -> Tensor:
    """The float16 numbers that begin a block: its scale, and in the kinds that have one the least value."""
    return blocks.view(torch.float16)[:, : 2 if form.name.endswith("_1") else 1]


def _require_held(name: str, piece: Tensor, cast: Tensor) -> None:
    """Raise `TensorMismatch` for a number that float16 has no place for."""
    if cast.dtype == torch.float16 and piece.dtype not in (torch.float16, FP8) and _has_overflow(cast):
        raise TensorMismatch(f"{name}: numbers beyond float16's 65504; bf16 holds them")


def _are_finite(numbers: Tensor) -> bool:
    """Asked by the sums of columns first: where those are finite, all are."""
    return all(math.isfinite(column.sum()) for column in numbers.unbind(1)) or bool(numbers.isfinite().all())


def _has_overflow(cast: Tensor) -> bool:
    """Whether a float16 element is infinite; where the sum is finite, in 1/25 of the time, none is."""
    return not math.isfinite(cast.sum()) and bool(cast.isinf().any())


def _pieces(stored: StoredTensor, values: Tensor, elements: int = PIECE) -> Iterator[Tensor]:
    """The elements in order. Raises `StaleFile` where a file they are mapped from changed: a shorter one is a crash."""
    files = files_of({"": stored})
    for piece in in_pieces(values, elements):
        for file in files:
            file.require_unchanged()
        yield piece


def _read_in_pieces(stored: StoredTensor) -> Iterator[Tensor]:
    """The elements in order, each piece in the place of the one before it.

    Read where they lie in a file, not mapped: a file that is cut short meanwhile is an error instead of a crash, and
    one that is written over is noticed behind each piece.
    """
    slice_, elements = _in_file(stored), prod(stored.shape)
    if slice_ is None:
        yield from _pieces(stored, stored.read())
        return
    held = torch.empty(min(PIECE, elements), dtype=stored.dtype)
    raw = held.view(torch.uint8).numpy().data
    for at in range(0, max(elements, 1), PIECE):
        piece = held[: elements - at]
        slice_.read_into(at * piece.itemsize, raw[: piece.nbytes])
        yield piece


def _cast_into(place: Tensor, piece: Tensor, wide: Tensor) -> Tensor:
    """`piece` in the precision of `place`, which is filled. From one narrow precision to another by way of `wide`, in
    float32: it is exact, and torch takes half the time.
    """
    if place.dtype.itemsize <= 2 and piece.dtype.itemsize <= 2:
        piece = wide[: piece.numel()].copy_(piece)
    return place.copy_(piece)


def _scratch(stored: StoredTensor) -> Tensor:
    """float32 numbers for a piece of a tensor: made once, not with every piece."""
    return torch.empty(min(PIECE, prod(stored.shape)))


def _root(name: str) -> str:
    """What stands before the network's own names: where its marker belongs."""
    found = re.match(r"(.*?)(?:joint_blocks|transformer_blocks|encoder\.block)\.", name)
    return found[1] if found is not None else ""


class _Rounding:
    """One matrix in float8, and the scale by which it fills that range: known once the matrix is written.

    Files hold scalars behind everything else, so the scale is asked for later.
    """

    def __init__(self, name: str, stored: StoredTensor, loss: Loss) -> None:
        self._name, self._stored, self._loss = name, stored, loss
        self.scale = torch.ones(())

    def pieces(self, room: Room) -> Iterator[Tensor]:
        """The rounded elements. The scale is known as soon as the first is asked for."""
        values = self._stored.read()
        largest = [_largest(piece) for piece in _pieces(self._stored, values)]
        if not all(map(math.isfinite, largest)):
            raise TensorMismatch(f"{self._name}: infinity or NaN, which no scale fits; {WAY_OUT}")
        # numbers smaller than the normal ones have few digits: they are nothing to divide by
        self.scale = torch.tensor(max(largest) / torch.finfo(FP8).max or 1.0).clamp(torch.finfo(torch.float32).tiny)
        quotients = _scratch(self._stored)
        for at, piece in enumerate(_pieces(self._stored, values)):
            quotient = quotients[: piece.numel()].copy_(piece).div_(self.scale)
            rounded = room(piece.numel(), FP8).copy_(quotient)
            if at == 0:
                self._loss.note(self._name, piece, rounded[:SAMPLE].float() * self.scale)
            yield rounded

    def scales(self, _: Room) -> Sequence[Tensor]:
        """The scale, in the one piece that it is."""
        return (self.scale,)


def sizes(tensors: Iterable[Outgoing]) -> int:
    """Bytes that the tensors will take."""
    return sum(tensor.size_bytes for tensor in tensors)
