"""`compare`: one workflow under many samplers, schedules, step counts, guidance and seeds, side by side."""

from sigmagraph.engine.compose.comparison.comparison import PLOTS, Comparison, can_plot, compare

__all__ = ["PLOTS", "Comparison", "can_plot", "compare"]
