"""Values of a wrong kind, wherever a caller gives one: our errors, which name place, value and what is allowed."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sigmagraph.engine.errors import BadValue, EngineError
from sigmagraph.engine.redaction import shown
from sigmagraph.engine.sampling import (
    SCHEDULES,
    SOLVERS,
    ComfyNoise,
    PhiloxNoise,
    Sampling,
    edm,
    find_schedule,
    find_solver,
    parse_sigmas,
    run_sigmas,
    step_range,
)
from tests.sampling.closed_form import bumps

VE = edm(0.03, 14.6)
WRONG = ("x", "3", None, [1], [], {}, b"1", True, math.nan, 1j, torch.tensor([1.0, 2.0]), object())
NUMBERS = (math.inf, -math.inf, 10**5000, -(10**400))


def run(**parts: Any) -> object:
    """A short run, but for what is given."""
    plain: dict[str, Any] = {
        "denoiser": bumps,
        "latent": torch.zeros(1, 1, 2, 2),
        "sigmas": [1.0, 0.5, 0.0],
        "model": VE,
        "solver": "euler_ancestral",
        "noise": PhiloxNoise(1),
    }
    return Sampling(**(plain | parts)).run()


@pytest.mark.parametrize("kind", ["sampler", "schedule"])
def test_every_option_names_itself_the_value_and_what_is_allowed(kind: str) -> None:
    for one in (SOLVERS if kind == "sampler" else SCHEDULES).values():
        for option in one.options:
            right = str if option.kind is str else bool if option.kind is bool else ()
            for value in (*WRONG, *NUMBERS):
                unlimited = isinstance(value, float) and getattr(option.limits, "high", 0) == value
                if unlimited or (value is None and option.default is None) or (value is True and right is bool):
                    continue
                with pytest.raises(BadValue) as refused:
                    option.check(f"{kind} {one.name}", value)
                words = f"{kind} {one.name}.{option.name}: {shown(value)} is not allowed; expected {option.allowed}"
                assert str(refused.value) == words


STEPS: dict[str, Callable[[Any], object]] = {
    "schedule karras.steps": lambda value: SCHEDULES["karras"](VE.levels, value),
    "schedule simple.steps": lambda value: SCHEDULES["simple"](VE.levels, value),
    "steps": lambda value: run_sigmas(SCHEDULES["karras"], VE.levels, value),
    "denoise": lambda value: run_sigmas(SCHEDULES["karras"], VE.levels, 4, value),
    "start": lambda value: step_range([1.0, 0.5, 0.0], value),
    "end": lambda value: step_range([1.0, 0.5, 0.0], 0, value),
    "seed": ComfyNoise,
    "edm": lambda value: edm(value),
    "sigmas[1]": lambda value: run(sigmas=[1.0, value, 0.0]),
}


@pytest.mark.parametrize("place", STEPS)
def test_numbers_of_a_wrong_kind_are_named(place: str) -> None:
    for value in (*WRONG, -math.inf, -(10**400), -1):
        with pytest.raises(BadValue) as refused:
            STEPS[place](value)
        assert str(refused.value).startswith(place)
        assert " is not allowed; expected " in str(refused.value)


def test_more_steps_than_a_schedule_has_are_refused_before_they_are_made() -> None:
    for name in SCHEDULES:
        for steps in (20_000, 10**5000):
            with pytest.raises(BadValue, match="a whole number, 1 or more, at most 10000"):
                SCHEDULES[name](VE.levels, steps)


def test_names_and_texts_of_a_wrong_kind_are_named() -> None:
    for value in (None, b"1", [1], 3, torch.tensor(1.0)):
        with pytest.raises(BadValue, match="name of a sampler.*NAME or NAME@REVISION"):
            find_solver(value)  # type: ignore[arg-type]
        with pytest.raises(BadValue, match="name of a schedule"):
            find_schedule(value)  # type: ignore[arg-type]
        with pytest.raises(BadValue, match="sigmas.*a string of numbers"):
            parse_sigmas(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "part", ["denoiser", "latent", "sigmas", "model", "solver", "noise", "options", "mask", "batch_index"]
)
def test_parts_of_a_sampling_of_a_wrong_kind_are_named(part: str) -> None:
    for value in (3, math.nan, object(), "x"):
        with pytest.raises(EngineError) as refused:
            run(**{part: value})
        assert part.removesuffix("solver") in str(refused.value)
        assert shown(value) in str(refused.value) or part == "sigmas"
    with pytest.raises(EngineError, match="None is not a known option"):
        run(options={None: 1})
