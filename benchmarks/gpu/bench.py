"""What every section shares: the device, the clock, the rows, and the files they are written to."""

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True)
class Row:
    """One finding: `figures` are numbers with the unit in their names, `text` is what a person reads."""

    section: str
    what: str
    text: str
    figures: dict[str, float]


@dataclass
class Bench:
    """One run. `facts` are figures of earlier sections that later ones compare with."""

    device: torch.device
    out: Path
    seconds: float
    is_dry: bool = False
    section: str = ""
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @property
    def has_cuda(self) -> bool:
        """Streams, events and graphs exist here."""
        return self.device.type == "cuda"

    def left(self) -> float:
        """Seconds until the run must be over."""
        return self.seconds - (time.perf_counter() - self.began)

    def say(self, what: str, text: str, **figures: float) -> None:
        """Note a finding, print it, and write both files."""
        self.rows.append(Row(self.section, what, text, figures))
        self.facts |= {f"{self.section}.{name}": value for name, value in figures.items()}
        print(f"[{time.perf_counter() - self.began:6.1f} s] {self.section}: {what}: {text}", flush=True)
        self._write()

    def needs_cuda(self, what: str) -> bool:
        """Whether `what` cannot run here; it is noted, not passed over in silence."""
        if not self.has_cuda:
            self.say(what, "needs CUDA: not run")
        return not self.has_cuda

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.has_cuda:
            torch.cuda.synchronize(self.device)

    def timed(self, call: Callable[[], object], rounds: int = 3, warm: int = 1) -> float:
        """The median of seconds that `call` takes, the device's work included."""
        for _ in range(warm):
            call()
        times = []
        for _ in range(1 if self.is_dry else rounds):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - start)
        return sorted(times)[len(times) // 2]

    def once(self, call: Callable[[], object]) -> float:
        """Seconds of a single call."""
        return self.timed(call, rounds=1, warm=0)

    def peak_gb(self, call: Callable[[], object]) -> float:
        """The most that the device holds during `call`, above what it held before. 0 without CUDA."""
        if not self.has_cuda:
            call()
            return 0.0
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        self.wait()
        return float(torch.cuda.max_memory_allocated(self.device) - before) / 1e9

    def tidy(self) -> None:
        """Give back what nothing holds any more."""
        gc.collect()
        if self.has_cuda:
            torch.cuda.empty_cache()

    def _write(self) -> None:
        lines = ["| section | what | found |", "| --- | --- | --- |"]
        lines += [f"| {row.section} | {row.what} | {row.text.replace('|', '/')} |" for row in self.rows]
        (self.out / "results.md").write_text("\n".join(lines) + "\n")
        (self.out / "results.json").write_text(json.dumps([row.__dict__ for row in self.rows], indent=1) + "\n")
