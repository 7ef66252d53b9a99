"""What a run leaves behind: the predictions it received (a checkpoint) and the states it went through (a trajectory).

Both are safetensors files, written and read here in a few lines so that sampling needs nothing but torch.
"""

import ctypes
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, CorruptFile, MissingFile
from sigmagraph.engine.sampling.solver import Prediction
from sigmagraph.engine.sampling.transition import Transition
from sigmagraph.engine.writing import write_file

if TYPE_CHECKING:
    from sigmagraph.engine.sampling.solver_run import Tick

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
PARTS = ("denoised", "uncond", "memory")


@dataclass
class Recording:
    """The predictions a run has received so far. Handed to an equal run, it brings that run to the same place.

    `about` says which run that is; a different one refuses the recording.
    """

    predictions: list[Prediction] = field(default_factory=list)
    about: str = ""
    replayed: int = 0
    asks_whose_it_is: ClassVar[bool] = True  # False where whoever keeps it knows

    def belongs_to(self, about: str) -> None:
        """Claim the recording for a run, or refuse it if it is another's."""
        if self.about not in ("", about):
            raise BadValue("recording", self.about, f"the recording of this run: {about}")
        self.about = about

    def rest(self) -> Iterator[Prediction]:
        """The predictions not replayed yet, each marked as it is handed out."""
        while self.replayed < len(self.predictions):
            self.replayed += 1
            yield self.predictions[self.replayed - 1]

    def add(self, prediction: Prediction) -> None:
        """Note a new prediction."""
        self.predictions.append(prediction)
        self.replayed = len(self.predictions)

    def restart(self) -> None:
        """Forget what was received: the run begins anew."""
        self.predictions.clear()
        self.replayed = 0

    def save(self, path: Path) -> None:
        """Write the recording to a safetensors file."""
        tensors = {
            f"{place:06d}/{part}": value
            for place, prediction in enumerate(self.predictions)
            for part, value in zip(PARTS, prediction, strict=True)
            if value is not None
        }
        save_tensors(path, tensors, {"about": self.about, "predictions": str(len(self.predictions))})

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "Recording":
        """Read a recording back."""
        tensors, about = load_tensors(path)
        try:
            count = int(about["predictions"])
            rows = [[tensors.get(f"{place:06d}/{part}") for part in PARTS] for place in range(count)]
        except (KeyError, ValueError) as error:
            raise CorruptFile(path, "not a recording of a sampling run") from error
        predictions = []
        for denoised, uncond, memory in rows:
            if denoised is None:
                raise CorruptFile(path, "a prediction is missing from the recording")
            moved = (one if one is None else one.to(device) for one in (uncond, memory))
            predictions.append(Prediction(denoised.to(device), *moved))
        return cls(predictions, about.get("about", ""))


@dataclass
class Trajectory:
    """Every tick's level, state and estimate: `on_tick=trajectory.add`, then `save`.

    `transitions`: the distribution each state was drawn from, of samplers that say so; None elsewhere.
    """

    sigmas: list[float] = field(default_factory=list)
    x: list[Tensor] = field(default_factory=list)
    denoised: list[Tensor] = field(default_factory=list)
    transitions: list[Transition | None] = field(default_factory=list)

    def add(self, tick: "Tick") -> None:
        """Note one tick."""
        self.sigmas.append(tick.sigma)
        self.x.append(tick.x)
        self.denoised.append(tick.denoised)
        self.transitions.append(tick.transition)

    def log_prob(self, step: int, *, per_element: bool = False) -> Tensor:
        """Ln of the density with which `step` (from 0) led to its state, as `Transition.log_prob` gives it."""
        if not 0 <= step < len(self.transitions):
            raise BadValue("step", step, f"a step from 0 to {len(self.transitions) - 1}")
        if (transition := self.transitions[step]) is None:
            allowed = (
                "a sampler with transitions: flow_grpo, flow_cps, flow_euler_sde, precise, flow_sde_2m, flow_sde_3m"
            )
            raise BadValue(f"log-probability of step {step}", "a step whose distribution is not known", allowed)
        return transition.log_prob(self.x[step], per_element=per_element)

    def log_probs(self, *, per_element: bool = False) -> Tensor:
        """Those of all stochastic steps, float64 [steps, B]."""
        chances = [place for place, one in enumerate(self.transitions) if one is not None and one.is_stochastic]
        if not chances:
            allowed = "a run with stochastic steps"
            raise BadValue("log-probabilities", "a run whose steps are all deterministic, or not known", allowed)
        return torch.stack([self.log_prob(place, per_element=per_element) for place in chances])

    def save(self, path: Path) -> None:
        """Write `sigma` [n], `x` and `denoised` [n, B, ...] to a safetensors file. All states must be of one size.

        With transitions also `mean` [n, B, ...] and `std` [n].
        """
        sizes = {tuple(one.shape) for one in (*self.x, *self.denoised)}
        if len(sizes) != 1:
            raise BadValue("trajectory", f"states of {len(sizes)} sizes", "one or more states, all of one size")
        sigma = torch.tensor(self.sigmas, dtype=torch.float64)
        tensors = {"sigma": sigma, "x": torch.stack(self.x), "denoised": torch.stack(self.denoised)}
        known = [one for one in self.transitions if one is not None]
        if known and len(known) == len(self.x):
            tensors["mean"] = torch.stack([one.mean for one in known])
            tensors["std"] = torch.tensor([one.std for one in known], dtype=torch.float64)
        save_tensors(path, tensors, {})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """A safetensors file: the header's length, the header, the tensors end to end."""
    header: dict[str, object] = {"__metadata__": dict(about)} if about else {}
    pieces: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        held = tensor.detach().to("cpu").contiguous()
        size = held.numel() * held.element_size()
        header[name] = {
            "dtype": NAMES[held.dtype],
            "shape": list(held.shape),
            "data_offsets": [offset, offset + size],
        }
        pieces.append(ctypes.string_at(held.data_ptr(), size))
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_file(path, len(text).to_bytes(8, "little") + text + b"".join(pieces))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its metadata; the header is checked against the file first."""
    if not path.is_file():
        raise MissingFile(path, "there is no such file")
    data = path.read_bytes()
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        body, tensors = bytearray(data[8 + size :]), {}
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                piece = torch.frombuffer(body, dtype=torch.uint8)[start:end].clone()
                tensors[name] = piece.view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CorruptFile(path, f"not a safetensors file of floating-point tensors ({error})") from error
    return tensors, header.get("__metadata__", {})
