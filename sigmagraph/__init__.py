"""Images from saved node graphs, and a sampler core that is a library of its own.

    import sigmagraph as sg

What there is stands in `__all__` and is explained in docs/python.md. A name is imported when it is first used, so that
`import sigmagraph` itself is quick and brings no torch. Type checkers read `__init__.pyi`.
"""

# No import at the top: `python -m sigmagraph` runs this before it has left the current folder's files out.
_HOMES = {
    "sigmagraph.api": "Comparison compare log_likelihood run sample schedule sigmas solver",
    "sigmagraph.client": "AsyncClient Client",
    "sigmagraph.engine.compose.generating": "Generated generate load",
    "sigmagraph.engine.compose.run_workflow": "Ran",
    "sigmagraph.engine.errors": "EngineError",
    "sigmagraph.engine.sampling": "SCHEDULES SOLVERS Cfg ComfyNoise Context Evaluate Interval Parameterisation"
    " PhiloxNoise Prediction Recording Sampling Step Steps Tick Unguided edm flux sd3 sdxl",
    "sigmagraph.engine.sampling.caches": "FirstBlock MagCache TaylorSeer TeaCache",
    "sigmagraph.engine.sampling.guidance": "Apg CfgZeroStar DualCfg EasyCache LazyCache PerpNeg Rescale SkipLayer",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    """Import a public name where it lives, once."""
    if name not in _HOME_OF:
        from sigmagraph.engine.errors import suggestion

        raise AttributeError(f"module 'sigmagraph' has no attribute {name!r}{suggestion(name, _HOME_OF)}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
