"""The samplers: a file per paper family. Importing this package registers them all."""

from engine.sampling.solvers import dpmpp, euler, heun

__all__ = ["dpmpp", "euler", "heun"]
