"""The samplers: a file per paper family. Importing this package registers them all."""

from engine.sampling.solvers import (
    adams,
    cfg_pp,
    ddpm,
    deis,
    dpm,
    dpm_fast,
    dpmpp,
    dpmpp_sde,
    er_sde,
    euler,
    gradient_estimation,
    heun,
    res,
    sa,
    seeds,
    unipc,
)

__all__ = [
    "adams",
    "cfg_pp",
    "ddpm",
    "deis",
    "dpm",
    "dpm_fast",
    "dpmpp",
    "dpmpp_sde",
    "er_sde",
    "euler",
    "gradient_estimation",
    "heun",
    "res",
    "sa",
    "seeds",
    "unipc",
]
