"""Every recorded run of ComfyUI 0.3.64 on the Gaussian mixture, made again by revision 1 of our samplers."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from sigmagraph.engine.sampling import SCHEDULES, SOLVERS
from tests.sampling import recorded
from tests.sampling.mixture import arrays, facts, relative_error
from tests.sampling.recorded import KINDS, NARROW_TABLES, SAMPLERS, WIDE_TABLES, Outcome

COMFY_SCHEDULES = list(SCHEDULES)[:9]


def check(outcome: Outcome) -> None:
    assert outcome.error <= outcome.limit, (outcome.key, outcome.error)
    assert len(outcome.asked) == outcome.evaluations, outcome.key


def check_grid(name: str, table: str, scales: tuple[str, ...]) -> None:
    outcomes = list(recorded.grid(name, table, scales))
    assert outcomes
    for outcome in outcomes:
        check(outcome)
        if f"evals_sigma/{outcome.key}" in arrays("evals") and table == "flow_f32":
            levels = arrays("evals")[f"evals_sigma/{outcome.key}"].tolist()
            assert outcome.asked == pytest.approx(levels, rel=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("table", WIDE_TABLES)
def test_float64_finals_and_counts_are_the_recorded_ones(name: str, table: str) -> None:
    check_grid(name, table, ("cfg4.5", "cfg1"))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("table", NARROW_TABLES)
def test_float32_finals_and_counts_are_the_recorded_ones(name: str, table: str) -> None:
    check_grid(name, table, ("cfg4.5",))


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("table", ["flow_f32", "eps_f32"])
def test_float32_finals_without_guidance_are_the_recorded_ones(name: str, table: str) -> None:
    check_grid(name, table, ("cfg1",))


def test_the_recordings_hold_every_sampler_with_every_schedule_and_every_kind_of_run() -> None:
    assert len(SAMPLERS) == 42
    assert set(SAMPLERS) < set(SOLVERS)
    for table in ("flow_f64", "flow_f32", "eps_f32"):
        pairs = Counter(tuple(key.split("/")[:2]) for key in facts("grids")[table]["runs"])
        assert set(pairs) == {(name, schedule) for name in SAMPLERS for schedule in COMFY_SCHEDULES}, table
    for keys, place in ((recorded.IMAGES, 2), (recorded.MASKS, 2), (recorded.PARTS, 1)):
        assert len({key.split("/")[place] for key in keys}) >= 6
    settings = {name for key in recorded.OPTIONS for name in facts("options")[key]["options"]}
    assert {"eta", "s_noise", "s_churn", "r", "order", "max_order", "solver_type", "tau", "max_stage"} <= settings
    assert {key.split("/")[0] for key in recorded.WHOLE_RUNS} >= {"run_flux", "run_vpred", "run_vpred_zsnr", "run_edm"}


@pytest.mark.parametrize(
    ("again", "key"),
    [
        *((recorded.with_options, key) for key in recorded.OPTIONS),
        *((recorded.from_image, key) for key in recorded.IMAGES),
        *((recorded.masked, key) for key in recorded.MASKS),
        *((recorded.part, key) for key in recorded.PARTS),
        *((recorded.whole_run, key) for key in recorded.WHOLE_RUNS),
    ],
)
def test_options_images_masks_parts_and_parameterisations_give_the_recorded_finals(
    again: Callable[[str], Outcome], key: str
) -> None:
    check(again(key))


@pytest.mark.parametrize("key", sorted(key for key in arrays("parameterisations") if "/sigma" in key))
def test_parameterisations_scale_as_recorded(key: str) -> None:
    kind, level, what = key.split("/")
    data, parameterisation = arrays("parameterisations"), KINDS[kind]
    sigma = float(torch.tensor(float(level[5:])))  # the recordings had it in float32
    x, noise, latent = data["x"], data["noise"], data["latent"]
    result = {
        "calculate_input": lambda: parameterisation.network_input(x, sigma),
        "calculate_denoised": lambda: parameterisation.denoised(x, sigma, data["model_output"]),
        "noise_scaling": lambda: parameterisation.noised(sigma, noise, latent),
        "noise_scaling_max": lambda: parameterisation.start(
            max(sigma, parameterisation.levels.sigma_max), noise, latent
        ),
        "inverse_noise_scaling": lambda: parameterisation.released(sigma, x),
    }[what]()
    if what == "noise_scaling_max":  # recorded at this level with the flag set by hand
        scale = sigma if kind in ("flow", "flux") else (1 + sigma**2) ** 0.5
        result = noise * scale + latent * (1 - sigma if kind in ("flow", "flux") else 1)
    assert relative_error(result, data[key]) < 5e-7


@pytest.mark.parametrize("key", sorted(k for k, v in facts("parameterisations").items() if not isinstance(v, dict)))
def test_levels_give_the_recorded_numbers(key: str) -> None:
    kind, what, *rest = key.split("/")
    levels, recorded = KINDS[kind].levels, facts("parameterisations")[key]
    if what == "percent_to_sigma":
        assert levels.percent_to_sigma(float(rest[0])) == pytest.approx(recorded, rel=1e-12)
    elif what.startswith("sigma_m"):
        assert getattr(levels, what) == recorded
    else:
        assert levels.timestep(float(what[5:])) == pytest.approx(recorded, rel=2e-7)
