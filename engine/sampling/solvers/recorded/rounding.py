"""Levels rounded as ComfyUI's tensors round them: a Brownian tree is asked with six decimals of them."""

from sigmagraph.engine.sampling.solver import Context


def rounded_middle(sigma: float, sigma_next: float, r: float, ctx: Context) -> float:
    """The level at the fraction `r` of the step in log-SNR, rounded on the way: its noise depends on it."""
    keep = ctx.rounded
    start = keep(ctx.process.log_snr(sigma))
    h = keep(keep(ctx.process.log_snr(sigma_next)) - start)
    return keep(ctx.process.sigma(keep(start + keep(r * h))))
