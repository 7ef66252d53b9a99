"""Processes, schedules, solvers, noise sources, guidance and the value that joins them. Needs torch and nothing else.

What a sampling is made of is exported here; what builds such parts (levels, guidance rules, options) has its module.
"""

from sigmagraph.engine.sampling import schedules, solvers  # noqa: F401  # importing them registers their parts
from sigmagraph.engine.sampling.denoiser import Denoiser
from sigmagraph.engine.sampling.guidance import Cfg, Unguided
from sigmagraph.engine.sampling.levels import Levels
from sigmagraph.engine.sampling.noise import ComfyNoise, NoiseSource, NoNoise, PhiloxNoise
from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.parameterisation import Parameterisation, edm, flux, sd3, sdxl
from sigmagraph.engine.sampling.record import Recording, Trajectory
from sigmagraph.engine.sampling.sampling import Sampling
from sigmagraph.engine.sampling.schedule import (
    SCHEDULES,
    Schedule,
    find_schedule,
    parse_sigmas,
    run_sigmas,
    schedule,
    step_range,
)
from sigmagraph.engine.sampling.solver import (
    SOLVERS,
    Context,
    Evaluate,
    Prediction,
    Solver,
    Step,
    Steps,
    find_solver,
    solver,
)
from sigmagraph.engine.sampling.solver_run import Tick

__all__ = [
    "SCHEDULES",
    "SOLVERS",
    "Cfg",
    "Choices",
    "ComfyNoise",
    "Context",
    "Denoiser",
    "Evaluate",
    "Interval",
    "Levels",
    "NoNoise",
    "NoiseSource",
    "Parameterisation",
    "PhiloxNoise",
    "Prediction",
    "Recording",
    "Sampling",
    "Schedule",
    "Solver",
    "Step",
    "Steps",
    "Tick",
    "Trajectory",
    "Unguided",
    "edm",
    "find_schedule",
    "find_solver",
    "flux",
    "parse_sigmas",
    "run_sigmas",
    "schedule",
    "sd3",
    "sdxl",
    "solver",
    "step_range",
]
