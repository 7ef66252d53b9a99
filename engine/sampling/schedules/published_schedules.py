"""Levels that were found by searching on a trained model: published figures, not formulas.

Both searches keep some points of a long run so that a short one loses least (dynamic programming): GITS by how far the
path bends, optimal steps by how far the result moves.
"""

from typing import Annotated

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.levels import DiscreteLevels, Levels
from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.schedule import interpolate_sigmas, schedule, with_zero

GITS_COEFFICIENT = 1.2  # of the cost of one more step; for others no figures are published outside ComfyUI's program

# Chen 2024, arXiv:2405.11326, on Stable Diffusion 1.5: sigma at point i of a hundred even timesteps from 0.001 to 1
GITS_LEVELS = {
    0: 0.02916753,
    1: 0.09824532,
    2: 0.13792117,
    3: 0.17026083,
    4: 0.19894916,
    5: 0.22545385,
    6: 0.25053367,
    7: 0.27464288,
    8: 0.29807833,
    9: 0.32104823,
    10: 0.34370604,
    11: 0.36617002,
    12: 0.38853383,
    13: 0.41087446,
    15: 0.45573691,
    16: 0.4783645,
    17: 0.50118381,
    18: 0.52423614,
    20: 0.57119018,
    21: 0.59516323,
    23: 0.64427125,
    25: 0.69515091,
    26: 0.72133851,
    27: 0.74807048,
    29: 0.803307,
    30: 0.83188516,
    31: 0.86115354,
    33: 0.92192322,
    34: 0.95350921,
    38: 1.08895338,
    40: 1.162866,
    41: 1.20157266,
    42: 1.24153244,
    45: 1.36964464,
    48: 1.51179266,
    49: 1.56271636,
    50: 1.61558151,
    51: 1.67050016,
    54: 1.84880662,
    56: 1.98035145,
    57: 2.05039096,
    58: 2.12350607,
    59: 2.19988537,
    61: 2.36326075,
    62: 2.45070267,
    66: 2.84484982,
    67: 2.95596409,
    68: 3.07277966,
    71: 3.46139455,
    78: 4.65472794,
    83: 5.85520077,
    86: 6.77309084,
    88: 7.49001646,
    100: 14.61464119,
}
# the points that a search for 2, 3 ... 20 steps keeps between the first (100) and the last (0)
GITS_KEPT = (
    (29,),
    (49, 18),
    (61, 33, 11),
    (66, 42, 21, 6),
    (83, 57, 34, 15, 3),
    (83, 62, 42, 23, 8, 1),
    (83, 62, 45, 29, 15, 6, 1),
    (83, 66, 50, 34, 21, 11, 4, 1),
    (83, 66, 51, 38, 27, 17, 9, 4, 1),
    (83, 67, 54, 42, 30, 21, 13, 7, 3, 1),
    (83, 68, 56, 45, 34, 25, 17, 11, 6, 3, 1),
    (86, 71, 61, 49, 38, 29, 21, 15, 10, 6, 3, 1),
    (86, 71, 62, 50, 40, 31, 23, 17, 12, 8, 5, 3, 1),
    (88, 78, 68, 58, 48, 38, 30, 23, 17, 12, 8, 5, 3, 1),
    (88, 78, 68, 58, 48, 38, 30, 23, 17, 13, 9, 6, 4, 2, 1),
    (88, 78, 68, 58, 48, 38, 30, 23, 17, 13, 10, 7, 5, 3, 2, 1),
    (88, 78, 68, 59, 50, 41, 33, 26, 20, 15, 11, 8, 6, 4, 3, 2, 1),
    (88, 78, 68, 59, 50, 42, 34, 27, 21, 16, 12, 9, 7, 5, 4, 3, 2, 1),
    (88, 78, 68, 59, 50, 42, 34, 27, 21, 17, 13, 10, 8, 6, 5, 4, 3, 2, 1),
)

# Pei 2025, arXiv:2503.21774, for FLUX and Wan 2.1; Chroma is not in the paper: its figures are those of ComfyUI's node
OPTIMAL = {
    "FLUX": (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
    "Wan": (
        1.0,
        0.997,
        0.995,
        0.993,
        0.991,
        0.989,
        0.987,
        0.985,
        0.98,
        0.975,
        0.973,
        0.968,
        0.96,
        0.946,
        0.927,
        0.902,
        0.864,
        0.776,
        0.539,
        0.208,
        0.001,
    ),
    "Chroma": (
        0.992,
        0.99,
        0.988,
        0.985,
        0.982,
        0.978,
        0.973,
        0.968,
        0.961,
        0.953,
        0.943,
        0.931,
        0.917,
        0.9,
        0.881,
        0.858,
        0.832,
        0.802,
        0.769,
        0.731,
        0.69,
        0.646,
        0.599,
        0.55,
        0.501,
        0.451,
        0.402,
        0.355,
        0.311,
        0.27,
        0.232,
        0.199,
        0.169,
        0.143,
        0.12,
        0.101,
        0.084,
        0.07,
        0.058,
        0.048,
        0.001,
    ),
}


def gits(steps: int, coefficient: float = GITS_COEFFICIENT) -> list[float]:
    """GITS's levels for this many steps (2 or more), the last one 0; beyond 20 by lines in ln(sigma)."""
    if round(coefficient, 2) != GITS_COEFFICIENT:
        raise BadValue("coeff", coefficient, f"{GITS_COEFFICIENT}: figures of other coefficients are not published")
    kept = (100, *GITS_KEPT[min(steps, 20) - 2], 0)
    levels = [GITS_LEVELS[point] for point in kept]
    return [*(levels if steps <= 20 else interpolate_sigmas(levels, steps))[:-1], 0.0]


def optimal_steps(model: str, steps: int) -> list[float]:
    """The searched levels of a model of `OPTIMAL`, spread by lines in ln(sigma) over the steps; the last one 0."""
    levels = list(OPTIMAL[model])
    return [*(levels if steps + 1 == len(levels) else interpolate_sigmas(levels, steps))[:-1], 0.0]


# Sabour 2024, arXiv:2404.14507: the timesteps its authors give for the optimised ten-step schedules of SD1 and SDXL,
# whose levels the paper's table 3 has rounded, and the levels for Stable Video Diffusion
ALIGNED_TIMESTEPS = {
    "sd1": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}
ALIGNED_SVD = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


@schedule("align_your_steps", source="Sabour 2024, arXiv:2404.14507")
def align_your_steps(
    levels: Levels, steps: int, *, table: Annotated[str, Choices(("sd1", "sdxl", "svd"))] = "sdxl"
) -> list[float]:
    """The published optimised levels, spread over any number of steps by lines in ln(sigma); the last becomes 0."""
    known: tuple[float, ...] = ALIGNED_SVD
    if table in ALIGNED_TIMESTEPS:
        trained = DiscreteLevels().table.tolist()
        known = tuple(trained[timestep] for timestep in ALIGNED_TIMESTEPS[table])
    return [*(known if steps + 1 == len(known) else interpolate_sigmas(known, steps))[:-1], 0.0]


@schedule("sd_turbo", source="Sauer 2023, arXiv:2311.17042", exact_length=False)
def sd_turbo(levels: Levels, steps: int, *, denoise: Annotated[float, Interval(0.0, 1.0)] = 1.0) -> list[float]:
    """The four-step teacher's timesteps 999, 899 ... 99, from entry 10 - floor(10 denoise) on; then 0."""
    table, first = levels.table.tolist(), 10 - int(10 * denoise)
    picked = [table[len(table) * place // 10 - 1] for place in range(10, 0, -1)][first : first + steps]
    if not picked:
        raise BadValue("schedule sd_turbo.denoise", denoise, "at least 0.1")
    return with_zero(picked)
