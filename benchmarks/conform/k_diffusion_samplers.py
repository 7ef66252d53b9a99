"""k-diffusion's own samplers, unchanged, for `sigmagraph conform benchmarks/conform/k_diffusion_samplers.py`.

Two take the lowest and the highest level in place of a list; those get them here.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.oracles import k_diffusion_sampling

K = k_diffusion_sampling()
ORDERS = {
    "euler": 1,
    "euler_ancestral": 1,
    "heun": 2,
    "dpm_2": 2,
    "dpm_2_ancestral": 2,
    "lms": 4,
    "dpmpp_2s_ancestral": 2,
}
ORDERS |= {"dpmpp_sde": 2, "dpmpp_2m": 2, "dpmpp_2m_sde": 2, "dpmpp_3m_sde": 3}


def _named(name: str) -> Callable[..., Any]:
    function: Any = getattr(K, f"sample_{name}")
    function.order = ORDERS[name]  # as the names and the papers claim
    return function


for _name in ORDERS:
    globals()[f"sample_{_name}"] = _named(_name)


def sample_dpm_fast(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None,
    eta: float = 0.0, s_noise: float = 1.0, noise_sampler: Any = None,
) -> Tensor:  # fmt: skip
    """From the first level to the last above 0, as many evaluations as there are steps."""
    kept = sigmas[sigmas > 0]
    result: Tensor = K.sample_dpm_fast(
        model,
        x,
        float(kept[-1]),
        float(kept[0]),
        len(sigmas) - 1,
        extra_args,
        callback,
        True,
        eta,
        s_noise,
        noise_sampler,
    )
    return result
