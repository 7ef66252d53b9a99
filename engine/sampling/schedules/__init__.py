"""The schedules: (levels, steps) -> sigmas. Importing this package registers them, in the order menus show them."""

from sigmagraph.engine.sampling.schedule import SCHEDULES
from sigmagraph.engine.sampling.schedules import formulas, published_schedules, trained_levels

__all__ = ["formulas", "published_schedules", "trained_levels"]

SCHEDULES.arrange(
    (
        "simple",
        "sgm_uniform",
        "karras",
        "exponential",
        "ddim_uniform",
        "beta",
        "normal",
        "linear_quadratic",
        "kl_optimal",
    )
)
