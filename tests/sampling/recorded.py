"""Every recorded run of ComfyUI 0.3.64 on the Gaussian mixture, made again by revision 1: how far off, how many calls.

The tests hold each outcome to its limit; `benchmarks.sampler_report` counts them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.sampling import (
    ComfyNoise,
    NoNoise,
    Parameterisation,
    edm,
    find_schedule,
    find_solver,
    flux,
    run_sigmas,
    sd3,
    sdxl,
    step_range,
)
from sigmagraph.engine.sampling.guidance import Cfg, Rescale
from sigmagraph.engine.sampling.parameterisation import continuous_v
from tests.sampling.mixture import SEED, TWINS, arrays, facts, predict, relative_error, run, tolerance

FAMILIES = {"flow": sd3(), "eps": sdxl()}
KINDS: Mapping[str, Parameterisation] = {
    "flow": sd3(),
    "flux": flux(),
    "eps": sdxl(),
    "vpred": sdxl("v"),
    "vpred_zsnr": sdxl("v", zero_terminal_snr=True),
    "edm": edm(0.002, 80.0, 0.5),
    "continuous_v": continuous_v(),
}
SCALING = {"flow": (1.5305, 0.0609), "eps": (0.13025, 0.0)}  # latent scale and shift of SD3 and SDXL
SAMPLERS = sorted({key.split("/")[0] for key in facts("grids")["flow_f32"]["runs"]})
WIDE_TABLES, NARROW_TABLES = ("flow_f64", "eps_f64"), ("flow_f32", "eps_f32", "short_flow_f32", "short_eps_f32")
OPTIONS, IMAGES, MASKS = (sorted(facts(name)) for name in ("options", "img2img", "inpaint"))
PARTS = sorted(key for key in facts("advanced") if "denoise0" not in key)
WHOLE_RUNS = sorted(key for key, value in facts("parameterisations").items() if isinstance(value, dict))


LOOSER = {
    # no floors were recorded at sigma 4518, where float32 has 5e-4 of it
    **{("run_vpred_zsnr", name): 1e-4 for name in ("euler", "euler_ancestral")},
    ("run_flux", "uni_pc"): 2e-3,  # float32 logarithms at sigma 0.001 are the recording's own 1e-3
}


@dataclass(frozen=True)
class Outcome:
    """One recorded run made again: the largest difference over its rms, the limit, levels asked, how many it had."""

    key: str
    sampler: str
    error: float
    limit: float
    asked: list[float]
    evaluations: int

    @property
    def passes(self) -> bool:
        """Whether it is the recorded run: result and number of evaluations."""
        return self.error <= self.limit and len(self.asked) == self.evaluations


def scaled(latent: Tensor, family: str) -> Tensor:
    scale, shift = SCALING[family]
    return (latent - shift) * scale if latent.any() else latent


def unscaled(latent: Tensor, family: str) -> Tensor:
    scale, shift = SCALING[family]
    return latent / scale + shift


def grid(name: str, table: str, scales: tuple[str, ...]) -> Iterator[Outcome]:
    """Every schedule and length recorded for one sampler in one table."""
    family, dtype = table.removeprefix("short_").split("_")
    precision = torch.float64 if dtype == "f64" else torch.float32
    rows, columns = facts("grids")[table]["every"]
    solver = find_solver(name, 1)
    for key, (evaluations, status, *rms) in facts("grids")[table]["runs"].items():
        sampler, schedule_name, steps, scale = key.split("/")
        if sampler != name or status != "ok" or scale not in scales:
            continue
        sigmas = run_sigmas(
            find_schedule(schedule_name, 1), FAMILIES[family].levels, int(steps[5:]), 1.0, solver.drops_penultimate
        )
        result, asked = run(solver, sigmas, family=family, guidance_scale=float(scale[3:]), dtype=precision)
        kept = arrays(table)["final/" + key.replace(name + "/", TWINS.get(name, name) + "/", 1)]
        error = relative_error(result[..., ::rows, ::columns], kept, rms[0])
        yield Outcome(key, name, error, tolerance(family, name, precision), asked, evaluations)


def as_our_options(given: dict[str, Any]) -> dict[str, object]:
    """The recorded settings in our option names: tau as [from, to, eta] is three of them."""
    options = dict(given)
    if (tau := options.pop("tau", None)) is not None:
        options |= {"sde_start_sigma": tau[0], "sde_end_sigma": tau[1], "eta": tau[2]}
    return options


def with_options(key: str) -> Outcome:
    """A run with settings of its own; what fails there (deis_mode rhoab) is held to our exact rule instead."""
    info, (family, _, name, schedule_name, *_) = facts("options")[key], key.split("/")
    sigmas = arrays("options")[f"sigmas/{family}/{schedule_name}"].tolist()
    result, asked = run(find_solver(name, 1), sigmas, family=family, options=as_our_options(info["options"]))
    if info["status"] == "error":
        exact, counted = run(find_solver("deis", 2), sigmas, family=family)
        return Outcome(key, name, relative_error(result, exact), 1e-5, asked, len(counted))
    error = relative_error(result, arrays("options")[f"final/{key}"])
    return Outcome(key, name, error, tolerance(family, name, torch.float32), asked, info["nfe"])


def from_image(key: str) -> Outcome:
    """A run from a given latent, renoised."""
    family, kind, name, *_ = key.split("/")
    solver, given = find_solver(name, 1), arrays("img2img")[f"{family}/latent_in"]
    latent = scaled(given, family) if kind == "img2img" else torch.zeros_like(given)
    denoise = 0.6 if kind == "img2img" else 1.0
    sigmas = run_sigmas(find_schedule("simple", 1), FAMILIES[family].levels, 10, denoise, solver.drops_penultimate)
    result, asked = run(solver, sigmas, family=family, latent=latent)
    kept = arrays("img2img")["final/" + key.replace(f"/{name}/", f"/{TWINS.get(name, name)}/")]
    error = relative_error(unscaled(result, family), kept)
    return Outcome(key, name, error, tolerance(family, name, torch.float32), asked, facts("img2img")[key]["nfe"])


def masked(key: str) -> Outcome:
    """A run that keeps a part of its latent."""
    family, mask, name, *_, denoise = key.split("/")
    solver, data = find_solver(name, 1), arrays("inpaint")
    sigmas = run_sigmas(
        find_schedule("normal", 1), FAMILIES[family].levels, 10, float(denoise[7:]), solver.drops_penultimate
    )
    latent = scaled(data[f"{family}/latent_in"], family)
    result, asked = run(solver, sigmas, family=family, latent=latent, mask=data[f"{family}/mask_{mask}"])
    error = relative_error(unscaled(result, family), data[f"final/{key}"])
    return Outcome(key, name, error, tolerance(family, name, torch.float32), asked, facts("inpaint")[key]["nfe"])


def part(key: str) -> Outcome:
    """A run from one step to another, with or without noise at its ends, or with places in a batch."""
    info, (kind, name, *_, tag) = facts("advanced")[key], key.split("/")
    family, is_plain, data = kind.removesuffix("_plain"), kind.endswith("_plain"), arrays("advanced")
    solver = find_solver(name, 1)
    whole = run_sigmas(find_schedule("normal", 1), FAMILIES[family].levels, 10, 1.0, solver.drops_penultimate)
    sigmas = step_range(whole, info.get("start", 0), info.get("last", 10_000), not info.get("force_full", True))
    latent = torch.zeros_like(data[f"{family}/latent_in"])
    if tag == "second_from_leftover":
        latent = data["final/" + key.replace(tag, "first_leftover")]
    elif not is_plain and tag not in ("first_leftover", "first_forced"):
        latent = data[f"{family}/latent_in"]
    indices = [int(index) for index in tag[11:].split("_")] if tag.startswith("batch_index") else None
    noise = NoNoise(ComfyNoise(SEED)) if info.get("disable_noise") else ComfyNoise(SEED)
    start = latent if is_plain else scaled(latent, family)
    result, asked = run(solver, sigmas, family=family, latent=start, noise=noise, batch_index=indices)
    result = result if is_plain or not sigmas else unscaled(result, family)
    kept = data["final/" + key.replace(f"/{name}/", f"/{TWINS.get(name, name)}/")]
    error = relative_error(result if sigmas else latent, kept)
    return Outcome(key, name, error, tolerance(family, name, torch.float32), asked, info["nfe"])


def whole_run(key: str) -> Outcome:
    """A run with another parameterisation, or with rescaled guidance."""
    if key.startswith("rescalecfg"):
        _, family, name, schedule_name, _, scale = key.split("/")
        parameterisation = FAMILIES[family]
        denoiser = Cfg(predict(family), "pos", "neg", float(scale[3:]), adjust=[Rescale(0.7)])
    else:
        kind, name, schedule_name, _, scale = key.split("/")
        parameterisation = KINDS[kind.removeprefix("run_")]
        family = "flow" if kind == "run_flux" else "eps"
        denoiser = Cfg(predict(family), "pos", "neg", float(scale[3:]))
    solver = find_solver(name, 1)
    sigmas = run_sigmas(find_schedule(schedule_name, 1), parameterisation.levels, 10, 1.0, solver.drops_penultimate)
    result, asked = run(solver, sigmas, family=family, parameterisation=parameterisation, denoiser=denoiser)
    limit = max(tolerance(family, name, torch.float32), LOOSER.get((key.split("/")[0], name), 0.0))
    error = relative_error(result, arrays("parameterisations")[f"final/{key}"])
    return Outcome(key, name, error, limit, asked, facts("parameterisations")[key]["nfe"])
