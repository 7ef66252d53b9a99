"""The samplers: a file per paper family. What they share is in `parts/`, revision 1 in `recorded/`.

Importing this package registers them all, in the order menus show them.
"""

from sigmagraph.engine.sampling.solver import SOLVERS
from sigmagraph.engine.sampling.solvers import (
    adams,
    cfg_pp,
    cfg_pp_adams,
    ddpm,
    deis,
    dpm,
    dpm_fast,
    dpmpp,
    dpmpp_sde,
    er_sde,
    euler,
    exponential,
    exponential_rk,
    flow_sde,
    gauss_legendre,
    gradient_estimation,
    heun,
    rectified_cfg_pp,
    res,
    restart,
    runge_kutta,
    sa,
    seeds,
    stork,
    unipc,
)

__all__ = [
    "adams",
    "cfg_pp",
    "cfg_pp_adams",
    "ddpm",
    "deis",
    "dpm",
    "dpm_fast",
    "dpmpp",
    "dpmpp_sde",
    "er_sde",
    "euler",
    "exponential",
    "exponential_rk",
    "flow_sde",
    "gauss_legendre",
    "gradient_estimation",
    "heun",
    "rectified_cfg_pp",
    "res",
    "restart",
    "runge_kutta",
    "sa",
    "seeds",
    "stork",
    "unipc",
]

SOLVERS.arrange(
    (
        *("euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "exp_heun_2_x0"),
        *("exp_heun_2_x0_sde", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral"),
        *("dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde"),
        *("dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu"),
        *("ddpm", "lcm", "ipndm", "ipndm_v", "deis", "cfgpp_ud10_ab", "res_multistep", "res_multistep_cfg_pp"),
        *("res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "gradient_estimation"),
        *("gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece", "ddim"),
        *("uni_pc", "uni_pc_bh2"),
    )
)
