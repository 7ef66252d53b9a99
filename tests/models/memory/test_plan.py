"""The plan of SD3.5 on machines people own: what goes where, and what is refused with advice."""

import pytest

from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.models.memory.plan import Budget, Part, plan

GB = 10**9
# sizes of the published files: 16-bit stored; the largest tensor and what is kept small are of the order they have
MEDIUM_BF16 = Part("Medium", "model", "bfloat16", 4_940 * 10**6, 4_940 * 10**6, 4_940 * 10**6, 450 * 10**6, 5 * 10**6)
MEDIUM_FP32 = Part("Medium", "model", "float32", 9_880 * 10**6, 4_940 * 10**6, 0, 900 * 10**6, 10 * 10**6)
LARGE_FP8 = Part(
    "Large", "model", "bfloat16", 16_290 * 10**6, 8_300 * 10**6, 0, 71 * 10**6, 9 * 10**6, packed_bytes=8_300 * 10**6
)
LARGE_BF16 = Part("Large", "model", "bfloat16", 16_290 * 10**6, 16_290 * 10**6, 16_290 * 10**6, 71 * 10**6, 9 * 10**6)
T5 = Part("t5xxl", "text", "float32", 19_050 * 10**6, 9_520 * 10**6, 0, 168 * 10**6, 2 * 10**6)
VAE = Part("VAE", "vae", "float32", 335 * 10**6, 168 * 10**6)


@pytest.mark.parametrize(
    ("part", "limit_gb", "is_host", "mode"),
    [
        (MEDIUM_BF16, 8, True, "mapped"),
        (MEDIUM_FP32, 8, True, "streamed"),
        (MEDIUM_FP32, 16, True, "resident"),
        (T5, 8, True, "streamed"),
        (T5, 24, True, "streamed"),
        (T5, 64, True, "resident"),
        (T5, 24, False, "streamed"),
        (T5, 80, False, "resident"),
        (LARGE_BF16, 12, False, "streamed"),
        (LARGE_BF16, 24, False, "resident"),
        (LARGE_FP8, 12, False, "packed"),
        (LARGE_FP8, 24, False, "packed"),
        (LARGE_FP8, 80, False, "resident"),
        (LARGE_FP8, 8, False, "streamed"),
    ],
)
def test_a_part_stays_where_it_fits_and_is_streamed_where_not(
    part: Part, limit_gb: int, is_host: bool, mode: str
) -> None:
    (placed,) = plan([part], Budget("device", limit_gb * GB, is_host)).placed
    assert placed.mode == mode
    assert placed.need_bytes <= limit_gb * GB


def test_parts_compute_one_after_another_so_the_neediest_counts() -> None:
    found = plan([T5, LARGE_BF16, VAE], Budget("cuda:0", 24 * GB, is_host=False))
    assert found.peak_bytes == 16_290 * 10**6 + 600 * 10**6
    assert len(found.lines()) == 4
    found.require()


def test_a_controlnet_computes_beside_its_model_so_both_count() -> None:
    net = Part("canny", "control", "bfloat16", dense_bytes=4 * GB, stored_bytes=4 * GB)
    found = plan([T5, LARGE_BF16, net], Budget("cuda:0", 24 * GB, is_host=False))
    alone = plan([net], Budget("cuda:0", 24 * GB, is_host=False))
    assert alone.peak_bytes == 4 * GB + 600 * 10**6
    assert found.peak_bytes == 16_290 * 10**6 + 600 * 10**6 + alone.peak_bytes
    assert "at every step, beside the model" in found.lines()[2]


def test_a_model_whose_pages_do_not_fit_is_refused_with_what_would_work() -> None:
    found = plan([T5, MEDIUM_BF16, VAE], Budget("cpu", 3 * GB))
    with pytest.raises(OutOfMemory) as refused:
        found.require()
    assert "Medium takes 6.00 GB on cpu, which has 3.00 GB left" in str(refused.value)
    assert "--memory stream takes 1.05 GB and reads the file at every step" in str(refused.value)
    assert "t5xxl" in str(refused.value)
    plan([T5, MEDIUM_BF16, VAE], Budget("cpu", 3 * GB, memory="stream")).require()


def test_a_budget_below_the_largest_tensor_says_so() -> None:
    with pytest.raises(OutOfMemory, match=r"and streamed it would take 1\.05 GB, the least that works"):
        plan([MEDIUM_BF16], Budget("cpu", GB // 2)).require()


def test_resident_is_refused_where_it_does_not_fit() -> None:
    with pytest.raises(OutOfMemory, match=r"--memory stream takes"):
        plan([LARGE_BF16], Budget("cuda:0", 12 * GB, is_host=False, memory="resident")).require()
