"""Processes, schedules, solvers, noise sources, guidance and the loop that joins them. Needs torch and nothing else."""

from sigmagraph.engine.sampling import solvers, spacings
from sigmagraph.engine.sampling.guidance import Ask, Cfg, Denoiser, Predict, Unguided
from sigmagraph.engine.sampling.levels import ContinuousLevels, DiscreteLevels, FlowLevels, FluxLevels, Levels
from sigmagraph.engine.sampling.noise import Comfy, Counter, NoiseSource, Silent, Streams, Wanted
from sigmagraph.engine.sampling.parameterisation import Parameterisation, continuous_v, edm, flux, sd3, sdxl
from sigmagraph.engine.sampling.process import Process, RectifiedFlow, VarianceExploding
from sigmagraph.engine.sampling.record import Recording, Trajectory
from sigmagraph.engine.sampling.run import Run, Tick, drive
from sigmagraph.engine.sampling.sample import ask_steps, sample, sample_steps
from sigmagraph.engine.sampling.schedules import (
    SCHEDULES,
    Schedule,
    cut,
    find_schedule,
    parsed,
    resampled,
    run_sigmas,
    schedule,
)
from sigmagraph.engine.sampling.solver import (
    SOLVERS,
    Choices,
    Context,
    Evaluate,
    Noise,
    Prediction,
    Range,
    Solver,
    Step,
    Steps,
    find_solver,
    solver,
)

__all__ = [
    "SCHEDULES",
    "SOLVERS",
    "Ask",
    "Cfg",
    "Choices",
    "Comfy",
    "Context",
    "ContinuousLevels",
    "Counter",
    "Denoiser",
    "DiscreteLevels",
    "Evaluate",
    "FlowLevels",
    "FluxLevels",
    "Levels",
    "Noise",
    "NoiseSource",
    "Parameterisation",
    "Predict",
    "Prediction",
    "Process",
    "Range",
    "Recording",
    "RectifiedFlow",
    "Run",
    "Schedule",
    "Silent",
    "Solver",
    "Step",
    "Steps",
    "Streams",
    "Tick",
    "Trajectory",
    "Unguided",
    "VarianceExploding",
    "Wanted",
    "ask_steps",
    "continuous_v",
    "cut",
    "drive",
    "edm",
    "find_schedule",
    "find_solver",
    "flux",
    "parsed",
    "resampled",
    "run_sigmas",
    "sample",
    "sample_steps",
    "schedule",
    "sd3",
    "sdxl",
    "solver",
    "solvers",
    "spacings",
]
