"""What ComfyUI 0.8.0 computes where 0.3.64 computed something else, made again by the revision of that name."""

import itertools
import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, ComfyNoise, find_schedule, find_solver, run_sigmas
from sigmagraph.engine.sampling.noise import NoiseSpec, Streams
from tests.sampling.mixture import DATA, SEED, arrays, relative_error, run, tolerance
from tests.sampling.recorded import FAMILIES, as_our_options, scaled, unscaled

FOLDER = DATA / "comfyui-0.8"
GRIDS = ("flow_f64", "eps_f64", "flow_f32", "eps_f32", "short_flow_f32", "short_eps_f32")
KEPT = {"flow_f64": (3, 2), "eps_f64": (3, 4)}  # rows and columns of the final latents that are stored
LIKE = {"exp_heun_2_x0": "seeds_2", "exp_heun_2_x0_sde": "seeds_2"}  # whose rounding was recorded
FACTS: dict[str, dict[str, Any]] = json.loads((FOLDER / "facts.json").read_text())
NAMES = sorted({key.split("/")[0] for key in FACTS["flow_f32"]})


@cache
def finals(table: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{table}.safetensors")


def limit(family: str, name: str, precision: torch.dtype) -> float:
    return tolerance(family, LIKE.get(name, name), precision)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("table", GRIDS)
def test_every_schedule_and_length_gives_the_recorded_finals(table: str, name: str) -> None:
    family, dtype = table.removeprefix("short_").split("_")
    precision = torch.float64 if dtype == "f64" else torch.float32
    solver, count = find_solver(name, "comfyui-0.8"), 0
    for key, facts in FACTS[table].items():
        sampler, schedule, steps, scale = key.split("/")
        if sampler != name:
            continue
        levels = FAMILIES[family].levels
        sigmas = run_sigmas(find_schedule(schedule, 1), levels, int(steps[5:]), 1.0, solver.drops_penultimate)
        result, asked = run(solver, sigmas, family=family, guidance_scale=float(scale[3:]), dtype=precision)
        rows, columns = KEPT.get(table, (1, 1))
        error = relative_error(result[..., ::rows, ::columns], finals(table)[f"final/{key}"], facts["rms"])
        assert error <= limit(family, name, precision), key
        assert len(asked) == facts["nfe"], key
        count += 1
    assert count


@dataclass(frozen=True)
class LoudSecondStages(ComfyNoise):
    """ComfyUI's noise with every second draw a billion: what such a draw is multiplied by must be 0 itself."""

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        streams, count = super().streams(like, spec), itertools.count(1)
        return replace(streams, draw=lambda: streams.draw() + (1e9 if next(count) % 2 == 0 else 0.0))


@pytest.mark.parametrize("revision", [1, "comfyui-0.8"])
@pytest.mark.parametrize(
    ("family", "schedule"), [("flow", "beta"), ("flow", "simple"), ("eps", "karras"), ("eps", "normal")]
)
def test_the_second_stage_of_exp_heun_2_x0_sde_adds_no_noise(family: str, schedule: str, revision: int | str) -> None:
    """Its stages lie at the end of the step, and no way is left for noise: rounding alone made 5e-3 of it."""
    solver = find_solver("exp_heun_2_x0_sde", revision)
    sigmas = run_sigmas(find_schedule(schedule, 1), FAMILIES[family].levels, 10)
    result, _ = run(solver, sigmas, family=family, noise=LoudSecondStages(SEED))
    expected, _ = run(solver, sigmas, family=family)
    assert torch.equal(result, expected)
    kept = finals(f"{family}_f32").get(f"final/exp_heun_2_x0_sde/{schedule}/steps10/cfg4.5")
    if revision != 1 and kept is not None:
        assert relative_error(result, kept) <= limit(family, "exp_heun_2_x0_sde", torch.float32) < 2e-3


@pytest.mark.parametrize("key", sorted(FACTS["options"]))
def test_settings_give_the_recorded_finals(key: str) -> None:
    facts, (family, _, name, schedule, *_) = FACTS["options"][key], key.split("/")
    sigmas = arrays("options")[f"sigmas/{family}/{schedule}"].tolist()
    solver = find_solver(name, "comfyui-0.8")
    result, asked = run(solver, sigmas, family=family, options=as_our_options(facts["options"]))
    assert relative_error(result, finals("options")[f"final/{key}"]) <= limit(family, name, torch.float32)
    assert len(asked) == facts["nfe"]


@pytest.mark.parametrize("key", sorted(FACTS["img2img"]))
def test_runs_from_an_image_give_the_recorded_finals(key: str) -> None:
    family, kind, name, *_ = key.split("/")
    solver, given = find_solver(name, "comfyui-0.8"), arrays("img2img")[f"{family}/latent_in"]
    latent = scaled(given, family) if kind == "img2img" else torch.zeros_like(given)
    denoise = 0.6 if kind == "img2img" else 1.0
    sigmas = run_sigmas(find_schedule("simple", 1), FAMILIES[family].levels, 10, denoise, solver.drops_penultimate)
    result, _ = run(solver, sigmas, family=family, latent=latent)
    error = relative_error(unscaled(result, family), finals("img2img")[f"final/{key}"])
    assert error <= limit(family, name, torch.float32)


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("euler_ancestral@comfyui-0.3", 1),
        ("euler_ancestral@comfyui-0.3.64", 1),
        ("euler_ancestral@comfyui-0.8", "comfyui-0.8"),
        ("euler_ancestral@comfyui-0.46", "comfyui-0.8"),
        ("euler_ancestral@2", 2),
        ("euler@comfyui-0.46", 1),
        ("res_2m@comfyui-0.8", 1),
    ],
)
def test_a_version_of_comfyui_is_the_revision_that_it_computes(text: str, revision: int | str) -> None:
    assert find_solver(text).revision == revision
    assert find_solver(text.partition("@")[0], text.partition("@")[2] if "comfyui" in text else revision) is not None


def test_a_schedule_may_be_named_by_the_version_too() -> None:
    assert find_schedule("normal@comfyui-0.8") is SCHEDULES["normal"].at(1)


@pytest.mark.parametrize("text", ["euler@comfyui", "euler@comfyui-", "euler@0.8", "euler@comfyui-0.8.1.2", "euler@-1"])
def test_what_is_no_revision_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="a whole number or `comfyui-VERSION`"):
        find_solver(text)


def test_the_names_that_changed_are_those_that_have_the_revision() -> None:
    changed = {name for name, solver in SOLVERS.items() if any(one.since for one in solver.older)}
    assert changed == {*NAMES, "dpm_fast", "dpm_adaptive"} - {"exp_heun_2_x0"}
