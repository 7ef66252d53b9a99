"""Guidance: (what the model predicts, conditionings) -> denoiser, a file per paper. Knows no solver or network."""

from sigmagraph.engine.sampling.denoiser import Denoiser, Predict, PredictRequest, Requesting, Stateful
from sigmagraph.engine.sampling.guidance.apg import Apg
from sigmagraph.engine.sampling.guidance.cfg import Adjustment, Cfg, Combination, Estimates, Linear, Unguided
from sigmagraph.engine.sampling.guidance.cfg_zero_star import CfgZeroStar
from sigmagraph.engine.sampling.guidance.dual_cfg import DualCfg
from sigmagraph.engine.sampling.guidance.perp_neg import PerpNeg, PerpNegCombination
from sigmagraph.engine.sampling.guidance.rescale import Rescale
from sigmagraph.engine.sampling.guidance.skip_layer import SkipLayer

__all__ = [
    "Adjustment",
    "Apg",
    "Cfg",
    "CfgZeroStar",
    "Combination",
    "Denoiser",
    "DualCfg",
    "Estimates",
    "Linear",
    "PerpNeg",
    "PerpNegCombination",
    "Predict",
    "PredictRequest",
    "Requesting",
    "Rescale",
    "SkipLayer",
    "Stateful",
    "Unguided",
]
