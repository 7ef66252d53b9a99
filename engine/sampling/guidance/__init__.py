"""Guidance: (what the model predicts, conditionings) -> denoiser, a file per paper. Knows no solver or network."""

from sigmagraph.engine.sampling.denoiser import Denoiser, Predict, PredictRequest, Requesting, Stateful
from sigmagraph.engine.sampling.guidance.apg import Apg, ApgPreparation
from sigmagraph.engine.sampling.guidance.cfg import (
    Adjustment,
    Cfg,
    Combination,
    Estimates,
    Linear,
    Preparation,
    ScaleRange,
    Unguided,
)
from sigmagraph.engine.sampling.guidance.cfg_norm import NormBound
from sigmagraph.engine.sampling.guidance.cfg_zero_star import CfgZeroStar, CfgZeroStarDenoised
from sigmagraph.engine.sampling.guidance.dual_cfg import DualCfg
from sigmagraph.engine.sampling.guidance.epsilon_scaling import EpsilonScaling
from sigmagraph.engine.sampling.guidance.frequency_decoupled import FrequencyDecoupled
from sigmagraph.engine.sampling.guidance.fresca import FrequencyScaling
from sigmagraph.engine.sampling.guidance.mahiro import Mahiro
from sigmagraph.engine.sampling.guidance.operation import Operated
from sigmagraph.engine.sampling.guidance.perp_neg import PerpNeg, PerpNegCombination
from sigmagraph.engine.sampling.guidance.renorm import Renorm
from sigmagraph.engine.sampling.guidance.rescale import Rescale, RescaledCfg
from sigmagraph.engine.sampling.guidance.reuse import (
    EasyCache,
    LazyCache,
    Reuse,
    ReusedPredict,
    ReuseRule,
    Space,
    network_space,
)
from sigmagraph.engine.sampling.guidance.score_rescaling import ScoreRescaling
from sigmagraph.engine.sampling.guidance.skip_layer import SkipLayer
from sigmagraph.engine.sampling.guidance.tangential_damping import TangentialDamping

__all__ = [
    "Adjustment",
    "Apg",
    "ApgPreparation",
    "Cfg",
    "CfgZeroStar",
    "CfgZeroStarDenoised",
    "Combination",
    "Denoiser",
    "DualCfg",
    "EasyCache",
    "EpsilonScaling",
    "Estimates",
    "FrequencyDecoupled",
    "FrequencyScaling",
    "LazyCache",
    "Linear",
    "Mahiro",
    "NormBound",
    "Operated",
    "PerpNeg",
    "PerpNegCombination",
    "Predict",
    "PredictRequest",
    "Preparation",
    "Renorm",
    "Requesting",
    "Rescale",
    "RescaledCfg",
    "Reuse",
    "ReuseRule",
    "ReusedPredict",
    "ScaleRange",
    "ScoreRescaling",
    "SkipLayer",
    "Space",
    "Stateful",
    "TangentialDamping",
    "Unguided",
    "network_space",
]
