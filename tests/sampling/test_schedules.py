"""Schedules and levels: the recorded values, and laws over the registry."""

import math

import pytest
import torch

from sigmagraph.engine.errors import BadValue, UnknownName
from sigmagraph.engine.sampling import (
    SCHEDULES,
    Levels,
    PhiloxNoise,
    Sampling,
    edm,
    find_schedule,
    flux,
    parse_sigmas,
    run_sigmas,
    sd3,
    sdxl,
    step_range,
)
from sigmagraph.engine.sampling.levels import Span
from sigmagraph.engine.sampling.parameterisation import continuous_v
from sigmagraph.engine.sampling.schedule import interpolate_sigmas
from sigmagraph.engine.sampling.schedules import trained_levels
from sigmagraph.engine.sampling.schedules.beta_quantile import beta_quantile, regularised
from tests.sampling.mixture import arrays, facts

pytestmark = pytest.mark.quick

RECORDED = {
    "flow_shift3": sd3().levels,
    "flow_shift1": sd3(1.0).levels,
    "eps": sdxl().levels,
    "flux_shift1.15": flux().levels,
    "vpred_zsnr": sdxl("v", zero_terminal_snr=True).levels,
    "edm": edm(0.002, 80.0, 0.5).levels,
}
EVERY = RECORDED | {"continuous_v": continuous_v().levels}
OWN_RANGE = {"vp", "align_your_steps"}  # levels of their own, beyond what a flow has
KEYS = sorted(key for key, info in facts("schedules").items() if info["status"] == "ok" and "steps0" not in key)


@pytest.mark.parametrize("name", RECORDED)
def test_tables_are_the_recorded_ones_bit_for_bit(name: str) -> None:
    assert torch.equal(RECORDED[name].table, arrays("schedules")[f"table/{name}"])


@pytest.mark.parametrize("schedule", sorted({key.split("/")[1] for key in KEYS}))
def test_schedules_of_revision_1_are_the_recorded_ones_bit_for_bit(schedule: str) -> None:
    for key in (key for key in KEYS if key.split("/")[1] == schedule and key in arrays("schedules")):
        model, _, steps, denoise, kind = key.split("/")
        recorded = arrays("schedules")[key]
        sigmas = run_sigmas(
            find_schedule(schedule, 1), RECORDED[model], int(steps[5:]), float(denoise[7:]), kind == "discard"
        )
        if recorded.isfinite().all():
            assert torch.equal(torch.tensor(sigmas), recorded), key
        else:  # kl_optimal in one step was 0/0
            assert sigmas == [RECORDED[model].sigma_max, 0.0]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 28, 139, 1200, 10_000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_decrease_end_in_zero_and_have_the_promised_length(name: str, steps: int) -> None:
    schedule = SCHEDULES[name]
    for model in ("flow_shift3", "eps") if name not in OWN_RANGE else ("eps",):
        sigmas = schedule(EVERY[model], steps)
        assert sigmas[-1] == 0.0
        assert all(isinstance(sigma, float) and math.isfinite(sigma) for sigma in sigmas)
        assert all(a >= b for a, b in zip(sigmas, sigmas[1:], strict=False))
        if steps <= 28:
            distinct = sigmas if name != "laplace" else sorted(set(sigmas), reverse=True)
            assert all(a > b for a, b in zip(distinct, distinct[1:], strict=False))
        if schedule.exact_length:
            assert len(sigmas) == steps + 1
        if name not in {*OWN_RANGE, "laplace"}:
            assert sigmas[0] == pytest.approx(EVERY[model].sigma_max, rel=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_sigma_of_timestep_is_sigma(name: str) -> None:
    levels = EVERY[name]
    for sigma in levels.table[:: len(levels.table) // 20].tolist():
        assert levels.sigma(levels.timestep(sigma)) == pytest.approx(sigma, rel=2e-6)
        assert float(levels.sigmas_at(torch.tensor(levels.position(sigma)))) == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_percent_falls_from_the_top_to_zero(name: str) -> None:
    at = [EVERY[name].percent_to_sigma(p / 20) for p in range(21)]
    assert at[-1] == 0.0
    assert at[0] >= EVERY[name].sigma_max * (1 - 1e-6)
    assert all(a > b for a, b in zip(at, at[1:], strict=False))


def test_normal_revision_2_shifts_once_so_no_step_is_thirty_fold() -> None:
    def jump(revision: int) -> float:
        sigmas = find_schedule("normal", revision)(sd3().levels, 10)[:-1]
        return max(a / b for a, b in zip(sigmas[1:], sigmas[2:], strict=False))

    assert jump(1) > 30
    last = find_schedule("normal", 2)(sd3().levels, 10)[-2]
    assert last == pytest.approx(sd3().levels.sigma_min, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 6, 10, 28, 60])
def test_ddim_uniform_revision_2_starts_at_the_top_and_keeps_its_length(steps: int) -> None:
    sigmas = find_schedule("ddim_uniform", 2)(sd3().levels, steps)
    assert (sigmas[0], len(sigmas)) == (1.0, steps + 1)
    assert len(find_schedule("ddim_uniform", 1)(sd3().levels, 28)) == 30


def test_polyexponential_with_rho_1_is_exponential() -> None:
    levels = sdxl().levels
    assert SCHEDULES["polyexponential"](levels, 12) == pytest.approx(SCHEDULES["exponential"](levels, 12), rel=2e-6)


def test_beta57_is_beta_with_other_numbers() -> None:
    levels = sd3().levels
    assert SCHEDULES["beta57"](levels, 20) == SCHEDULES["beta"](levels, 20, alpha=0.5, beta=0.7)


TABLE_3 = {  # of Sabour 2024, arXiv:2404.14507
    "sd1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
}


@pytest.mark.parametrize("table", TABLE_3)
def test_align_your_steps_gives_the_published_levels_at_ten_steps(table: str) -> None:
    sigmas = SCHEDULES["align_your_steps"](sdxl().levels, 10, table=table)
    assert sigmas[-1] == 0.0
    assert sigmas[:-1] == pytest.approx(TABLE_3[table], rel=0.015)  # the table has them to three decimals


def test_align_your_steps_has_the_levels_of_existing_graphs_to_their_tenth_decimal() -> None:
    sigmas = SCHEDULES["align_your_steps"](sdxl().levels, 10, table="sd1")
    # 1 - alpha-bar over alpha-bar, by hand in exact products
    betas = [(0.00085**0.5 + k / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2 for k in range(1000)]
    for sigma, timestep in zip(sigmas, (999, 850, 736, 645, 545, 455, 343, 233, 124, 24), strict=False):
        kept = math.prod(1 - beta for beta in betas[: timestep + 1])
        assert sigma == pytest.approx(math.sqrt((1 - kept) / kept), rel=1e-7)
    assert sigmas[1:3] == pytest.approx([6.4745760956, 3.8636745985], rel=1e-7)


def test_logit_normal_has_its_median_level_half_way() -> None:
    levels = sd3().levels
    middle = (levels.position(levels.sigma_max) + levels.position(levels.sigma_min)) / 2
    expected = float(levels.sigmas_at(torch.tensor(middle)))
    assert SCHEDULES["logit_normal"](levels, 10)[5] == pytest.approx(expected, rel=1e-5)


def test_bong_tangent_passes_half_way_and_mirrors_nothing() -> None:
    sigmas = SCHEDULES["bong_tangent"](sd3().levels, 20)
    assert min(abs(sigma - 0.5) for sigma in sigmas) < 1e-12


def test_schedules_made_for_other_levels_are_refused_on_flow() -> None:
    for name in OWN_RANGE:
        with pytest.raises(BadValue, match="not made for one"):
            SCHEDULES[name](sd3().levels, 10)


def test_a_span_of_levels_gives_its_ends_to_the_schedule() -> None:
    sigmas = SCHEDULES["karras"](Span(0.0291675, 14.614642), 5)
    assert sigmas[0] == pytest.approx(14.614642, rel=1e-6)
    assert sigmas[-2] == pytest.approx(0.0291675, rel=1e-5)


def test_bad_steps_options_and_fractions_are_refused() -> None:
    with pytest.raises(BadValue, match="1 or more"):
        SCHEDULES["simple"](sd3().levels, 0)
    with pytest.raises(UnknownName, match="did you mean 'rho'"):
        SCHEDULES["karras"](sd3().levels, 5, rhoo=7.0)
    with pytest.raises(BadValue, match="from 0 to 1"):
        run_sigmas(SCHEDULES["simple"], sd3().levels, 5, denoise=1.5)


def test_denoise_keeps_the_last_steps_of_a_longer_schedule() -> None:
    levels = sd3().levels
    assert run_sigmas(SCHEDULES["simple"], levels, 6, 0.3) == SCHEDULES["simple"](levels, 20)[-7:]
    assert run_sigmas(SCHEDULES["simple"], levels, 6, 0.0) == []


def test_cut_keeps_steps_from_start_to_end_and_forces_zero_unless_noise_may_be_left() -> None:
    sigmas = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert step_range(sigmas, 1, 3) == [0.8, 0.6, 0.0]
    assert step_range(sigmas, 1, 3, leftover_noise=True) == [0.8, 0.6, 0.4]
    assert step_range(sigmas, 5) == []
    assert step_range(sigmas) == sigmas


def test_sigmas_written_by_hand_are_read_and_checked() -> None:
    assert parse_sigmas("1.0, 5e-1; .25 0") == [1.0, 0.5, 0.25, 0.0]
    with pytest.raises(BadValue, match=r"sigmas\[2\]"):
        parse_sigmas("1, 0.5, 0.7")
    for text, place in (("1, nan, 0", r"sigmas\[1\]"), ("inf 0", r"sigmas\[0\]"), ("1, half, 0", "numbers, separated")):
        with pytest.raises(BadValue, match=place):
            parse_sigmas(text)


def test_resampling_keeps_ends_and_goes_straight_in_the_logarithm() -> None:
    assert interpolate_sigmas([16.0, 4.0, 1.0], 4) == pytest.approx([16.0, 8.0, 4.0, 2.0, 1.0])
    assert interpolate_sigmas([16.0, 4.0, 1.0], 1) == pytest.approx([16.0, 1.0])


def test_every_schedule_says_where_it_is_from() -> None:
    levels: Levels = sd3().levels
    assert levels.sigma_max == 1.0
    assert all(schedule.source for schedule in SCHEDULES.values())


def test_a_long_schedule_of_which_the_end_is_used_is_bounded() -> None:
    with pytest.raises(BadValue, match=r"denoise: '0\.001 at 20 steps'.*steps / denoise of at most 10000"):
        run_sigmas(SCHEDULES["beta"], sd3().levels, 20, 0.001)
    assert len(run_sigmas(SCHEDULES["simple"], sd3().levels, 20, 0.002)) == 21


def test_levels_that_end_in_0_are_spread_and_still_end_in_it() -> None:
    assert interpolate_sigmas([16.0, 4.0, 1.0, 0.0], 5) == pytest.approx([16.0, 8.0, 4.0, 2.0, 1.0, 0.0])
    assert interpolate_sigmas([16.0, 4.0, 0.0], 1) == [16.0, 0.0]


def test_a_range_of_steps_begins_at_0_or_later() -> None:
    with pytest.raises(BadValue, match="start: -2"):
        step_range([1.0, 0.5, 0.0], -2)


@pytest.mark.parametrize("shift", [0.01, 0.09, 16.94])
@pytest.mark.parametrize("name", ["simple", "normal", "karras", "beta", "sgm_uniform"])
def test_no_shift_s_rounding_leads_above_level_1_of_a_flow(name: str, shift: float) -> None:
    model = sd3(shift)
    sigmas = run_sigmas(find_schedule(name), model.levels, 5)
    run = Sampling(lambda x, sigma: x * 0.5, torch.zeros(1, 1, 2, 2), sigmas, model, noise=PhiloxNoise(1))
    assert max(sigmas) <= 1
    assert run.run().isfinite().all()


def test_edm_has_no_level_0() -> None:
    with pytest.raises(BadValue, match="two levels above 0"):
        edm(lowest=0.0)


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.6), (0.5, 0.7), (1.0, 1.0), (0.1, 5.0)])
def test_long_beta_schedules_have_the_entries_that_a_search_for_each_finds(alpha: float, beta: float) -> None:
    levels = sd3().levels
    table, steps = levels.table.tolist(), 300  # more than an eighth of the table: by places between entries
    found = [table[round(beta_quantile(1 - i / steps, alpha, beta) * 999)] for i in range(steps)]
    assert SCHEDULES["beta"](levels, steps, alpha=alpha, beta=beta) == [*dict.fromkeys(found), 0.0]


def test_the_longest_beta_schedule_takes_one_integral_for_each_place_of_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0

    def counting(at: float, alpha: float, beta: float) -> float:
        nonlocal asked
        asked += 1
        return regularised(at, alpha, beta)

    monkeypatch.setattr(trained_levels, "regularised", counting)
    run_sigmas(SCHEDULES["beta"], sd3().levels, 10, 0.001)
    assert asked == 999
