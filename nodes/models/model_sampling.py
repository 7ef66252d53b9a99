"""What a model value says about its noise levels: the same weights, sampled otherwise."""

from typing import Annotated, Literal

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Optional, Options, Range, Tooltip, node
from sigmagraph.engine.sampling import Parameterisation, edm, flux, sd3, sdxl
from sigmagraph.engine.sampling.levels import ContinuousLevels, FlowLevels
from sigmagraph.engine.sampling.parameterisation import continuous_v, lcm
from sigmagraph.engine.sampling.targets import TargetName
from sigmagraph.nodes.support.types import Model

__all__ = ["NODES"]

DISCRETE: dict[str, TargetName] = {
    "eps": "eps",
    "v_prediction": "v",
    "lcm": "lcm",
    "x0": "x0",
    "img_to_img": "image_to_image",
}
DiscreteKind = Annotated[str, Options(list(DISCRETE))]
EdmKind = Annotated[str, Options(["v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"])]
Sigma = Annotated[float, Range(0.0, 1000.0, step=0.001, round=False)]
Shift = Annotated[float, Range(0.0, 100.0, step=0.01), Tooltip("Above 1 more steps go to high noise.")]
Pixels = Annotated[int, Range(16, 16384, step=8)]
EDM_SIGMA_DATA = 0.5  # of both EDM kinds, as ComfyUI has it


@node("ModelSamplingSD3", category="advanced/model")
def model_sampling_sd3(*, model: Model, shift: Shift = 3.0) -> Model:
    """The same model with another shift of its noise levels (Esser 2024, arXiv:2403.03206, eq. 23)."""
    return model.with_parameterisation(sd3(_positive(shift, "shift")))


@node("ModelSamplingAuraFlow", category="advanced/model")
def model_sampling_aura_flow(
    *,
    model: Model,
    shift: Shift = 1.73,
    sampling: Annotated[str, Optional(), Options(["flow", "img_to_img_velocity"], named=True)] = "flow",
) -> Model:
    """The same model as rectified flow that is told sigma itself as its time."""
    if sampling != "flow":
        raise BadValue("sampling", sampling, "'flow': models that start from a picture are not supported")
    return model.with_parameterisation(Parameterisation(FlowLevels(_positive(shift, "shift"), 1.0), "flow"))


@node("ModelSamplingFlux", category="advanced/model")
def model_sampling_flux(
    *, model: Model, max_shift: Shift = 1.15, base_shift: Shift = 0.5, width: Pixels = 1024, height: Pixels = 1024
) -> Model:
    """The same model with a shift that grows with the picture, from 256 patches of 16 x 16 pixels to 4096."""
    slope = (max_shift - base_shift) / (4096 - 256)
    return model.with_parameterisation(flux(base_shift + slope * (width * height / 256 - 256)))


@node("ModelSamplingContinuousEDM", category="advanced/model", revision=2)
def model_sampling_edm(
    *, model: Model, sampling: EdmKind = "v_prediction", sigma_max: Sigma = 120.0, sigma_min: Sigma = 0.002
) -> Model:
    """The same model on levels spread evenly in ln(sigma) (Karras 2022, arXiv:2206.00364)."""
    low, high = _bounds(sigma_min, sigma_max)
    if sampling == "cosmos_rflow":
        return model.with_parameterisation(Parameterisation(ContinuousLevels(low, high, "cosmos"), "cosmos"))
    if sampling == "eps" or sampling == "v_prediction":
        target: TargetName = "v" if sampling == "v_prediction" else "eps"
        return model.with_parameterisation(Parameterisation(ContinuousLevels(low, high), target))
    return model.with_parameterisation(edm(low, high, EDM_SIGMA_DATA))


@node("ModelSamplingContinuousV", category="advanced/model")
def model_sampling_v(
    *,
    model: Model,
    sampling: Annotated[Literal["v_prediction"], Options(["v_prediction"])] = "v_prediction",
    sigma_max: Sigma = 500.0,
    sigma_min: Sigma = 0.03,
) -> Model:
    """The same model as v-prediction at continuous levels, told 2/pi atan(sigma)."""
    return model.with_parameterisation(continuous_v(*_bounds(sigma_min, sigma_max)))


@node("ModelSamplingDiscrete", category="advanced/model")
def model_sampling_discrete(*, model: Model, sampling: DiscreteKind = "eps", zsnr: bool = False) -> Model:
    """The same model on the thousand levels of SD1 and SDXL, predicting noise, v or the picture; `lcm` on fifty."""
    target = DISCRETE[sampling]
    return model.with_parameterisation(lcm(zsnr) if target == "lcm" else sdxl(target, zsnr))


def _positive(value: float, name: str) -> float:
    if value == 0:
        raise BadValue(name, value, "a number above 0")
    return value


def _bounds(low: float, high: float) -> tuple[float, float]:
    if not 0 < low < high:
        raise BadValue("sigma_min, sigma_max", (low, high), "two levels above 0, the first below the second")
    return low, high


NODES = (
    model_sampling_sd3,
    model_sampling_aura_flow,
    model_sampling_flux,
    model_sampling_edm,
    model_sampling_v,
    model_sampling_discrete,
)
