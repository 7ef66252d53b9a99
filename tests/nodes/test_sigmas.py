import math
from types import SimpleNamespace
from typing import Any

import pytest

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import flux, sd3, sdxl
from sigmagraph.nodes import NODES

SIGMAS = (1.0, 0.75, 0.5, 0.25, 0.0)
SD3 = SimpleNamespace(parameterisation=sd3())  # schedulers ask a model for its levels alone
SDXL = SimpleNamespace(parameterisation=sdxl())
FLUX = SimpleNamespace(parameterisation=flux())


def test_a_split_repeats_the_level_between() -> None:
    assert NODES["SplitSigmas"](sigmas=SIGMAS, step=1) == ((1.0, 0.75), (0.75, 0.5, 0.25, 0.0))
    assert NODES["SplitSigmas"](sigmas=SIGMAS, step=9) == (SIGMAS, ())


def test_a_split_by_share_counts_steps_from_the_end() -> None:
    assert NODES["SplitSigmasDenoise"](sigmas=SIGMAS, denoise=0.5) == ((1.0, 0.75, 0.5), (0.5, 0.25, 0.0))
    assert NODES["SplitSigmasDenoise"](sigmas=SIGMAS, denoise=1.0) == ((1.0,), SIGMAS)
    assert NODES["SplitSigmasDenoise"](sigmas=SIGMAS, denoise=0.0) == ((), (0.0,))


def test_turned_levels_do_not_start_at_zero() -> None:
    assert NODES["FlipSigmas"](sigmas=SIGMAS) == (1e-4, 0.25, 0.5, 0.75, 1.0)
    assert NODES["FlipSigmas"](sigmas=(1.0, 0.5)) == (0.5, 1.0)
    assert NODES["FlipSigmas"](sigmas=()) == ()


def test_the_first_level_can_be_set() -> None:
    assert NODES["SetFirstSigma"](sigmas=SIGMAS, sigma=0.9) == (0.9, 0.75, 0.5, 0.25, 0.0)


@pytest.mark.parametrize("spacing", ["linear", "cosine", "sine"])
def test_extended_levels_keep_those_that_were_there(spacing: str) -> None:
    longer = NODES["ExtendIntermediateSigmas"](sigmas=SIGMAS, steps=3, end_at_sigma=0.0, spacing=spacing)
    assert longer[::3] == SIGMAS
    assert sorted(longer, reverse=True) == list(longer)
    part = NODES["ExtendIntermediateSigmas"](sigmas=SIGMAS, steps=2, start_at_sigma=0.8, end_at_sigma=0.4)
    assert part == (1.0, 0.75, 0.625, 0.5, 0.375, 0.25, 0.0)


@pytest.mark.parametrize("text", ["1, 0.5,0", "1 0.5 0", "[1.0, 0.5, 0.0]", "1;0.5\n0"])
def test_levels_can_be_written_by_hand(text: str) -> None:
    assert NODES["ManualSigmas"](sigmas=text) == (1.0, 0.5, 0.0)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(BadValue, match="numbers, separated"):
        NODES["ManualSigmas"](sigmas="1, half")


def test_a_share_of_the_way_is_a_level() -> None:
    node = NODES["SamplingPercentToSigma"]
    assert node(model=SD3, sampling_percent=0.2) == pytest.approx(0.923077, abs=1e-6)
    assert node(model=SDXL, sampling_percent=0.8) == pytest.approx(0.571189, abs=1e-5)
    assert node(model=SD3, sampling_percent=1.0) == 0.0
    assert node(model=SD3, sampling_percent=1.0, return_actual_sigma=True) == SD3.parameterisation.levels.sigma_min


@pytest.mark.parametrize("name", ["KarrasScheduler", "ExponentialScheduler", "PolyexponentialScheduler"])
def test_a_scheduler_goes_from_one_given_level_to_the_other_and_then_to_zero(name: str) -> None:
    sigmas = NODES[name](steps=7, sigma_max=10.0, sigma_min=0.1)
    assert len(sigmas) == 8
    assert sigmas[0] == pytest.approx(10.0)
    assert sigmas[-2] == pytest.approx(0.1)
    assert sigmas[-1] == 0.0
    with pytest.raises(BadValue, match="the first below the second"):
        NODES[name](sigma_max=0.1, sigma_min=10.0)


def test_karras_in_closed_form() -> None:
    sigmas = NODES["KarrasScheduler"](steps=3, sigma_max=8.0, sigma_min=1.0, rho=3.0)
    assert sigmas == pytest.approx((8.0, 1.5**3, 1.0, 0.0))


def test_vp_in_closed_form() -> None:
    sigmas = NODES["VPScheduler"](steps=2, beta_d=2.0, beta_min=1.0, eps_s=0.5)
    assert sigmas == pytest.approx([math.sqrt(math.expm1(2.0)), math.sqrt(math.expm1(0.75)), 0.0])


def test_the_turbo_schedule_is_every_hundredth_level() -> None:
    table = SDXL.parameterisation.levels.table.tolist()
    assert NODES["SDTurboScheduler"](model=SDXL, steps=2) == pytest.approx((table[999], table[899], 0.0), rel=1e-6)
    assert NODES["SDTurboScheduler"](model=SDXL, steps=1, denoise=0.5) == pytest.approx((table[499], 0.0), rel=1e-6)


def test_the_turbo_schedule_of_a_flow_is_its_timesteps_not_its_highest_level() -> None:
    shifted = [3 * t / (1 + 2 * t) for t in (0.999, 0.899, 0.799)]
    assert NODES["SDTurboScheduler"](model=SD3, steps=3) == pytest.approx((*shifted, 0.0), rel=1e-6)
    with pytest.raises(BadValue, match=r"denoise: 0\.05 .* at least 0\.1"):
        NODES["SDTurboScheduler"](model=SD3, steps=3, denoise=0.05)
    with pytest.raises(BadValue, match="one with a thousand timesteps"):
        NODES["SDTurboScheduler"](model=FLUX, steps=3)


@pytest.mark.parametrize(("denoise", "steps"), [(1.0, 10), (0.5, 5), (0.0, None)])
def test_a_share_of_an_optimised_schedule_is_its_end(denoise: float, steps: int | None) -> None:
    whole = NODES["AlignYourStepsScheduler"](model_type="SDXL", steps=10)
    part = NODES["AlignYourStepsScheduler"](model_type="SDXL", steps=10, denoise=denoise)
    assert part == (whole[-(steps + 1) :] if steps is not None else ())


def test_the_basic_scheduler_cuts_as_the_sampler_node_does() -> None:
    node: Any = NODES["BasicScheduler"]
    whole = node(model=SD3, scheduler="simple", steps=10)
    assert node(model=SD3, scheduler="simple", steps=5, denoise=0.5) == whole[-6:]
    assert node(model=SD3, scheduler="simple", steps=5, denoise=0.0) == ()


def test_beta_sampling_with_the_usual_numbers_is_the_schedule_of_that_name() -> None:
    assert NODES["BetaSamplingScheduler"](model=SD3, steps=9) == NODES["BasicScheduler"](
        model=SD3, scheduler="beta", steps=9
    )


def test_the_video_schedule_ends_above_zero_at_its_terminal_level() -> None:
    sigmas = NODES["LTXVScheduler"](steps=5, terminal=0.2)
    assert sigmas[0] == 1.0
    assert sigmas[-2:] == (pytest.approx(0.2), 0.0)
    plain = NODES["LTXVScheduler"](steps=4, stretch=False, base_shift=0.0, max_shift=0.0)
    assert plain == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))
    assert NODES["LTXVScheduler"](steps=1) == (1.0, 0.0)


def test_gits_gives_the_published_levels() -> None:
    node = NODES["GITSScheduler"]
    assert node(steps=2) == (14.61464119, 0.803307, 0.0)
    assert node(steps=5) == (14.61464119, 2.84484982, 1.24153244, 0.59516323, 0.25053367, 0.0)
    assert node(steps=10)[1:4] == (5.85520077, 2.84484982, 1.67050016)
    assert node(steps=10, denoise=0.3) == node(steps=10)[-4:]
    with pytest.raises(BadValue, match=r"1\.2"):
        node(coeff=0.95)


def test_optimal_steps_gives_the_published_levels_and_spreads_them_over_other_numbers() -> None:
    node = NODES["OptimalStepsScheduler"]
    assert node(model_type="FLUX", steps=10)[:3] == (0.9968, 0.9886, 0.9819)
    spread = node(model_type="FLUX", steps=20)
    assert spread[::2] == pytest.approx(node(model_type="FLUX", steps=10), rel=1e-12)
    assert spread[1] == pytest.approx((0.9968 * 0.9886) ** 0.5, rel=1e-12)
    assert node(model_type="Wan", steps=20)[-2:] == (0.208, 0.0)
    assert node(model_type="Wan", steps=20, denoise=0.0) == ()


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 21, 60])
def test_searched_levels_fall_to_zero_in_the_promised_number_of_steps(steps: int) -> None:
    lists = [NODES["GITSScheduler"](steps=steps)]
    lists += [NODES["OptimalStepsScheduler"](model_type=name, steps=steps) for name in ("FLUX", "Wan", "Chroma")]
    for sigmas in lists:
        assert len(sigmas) == steps + 1
        assert sigmas[-1] == 0.0
        assert all(a > b for a, b in zip(sigmas, sigmas[1:], strict=False))
