"""Sampling: whole and taken apart, samplers and schedules as nodes, guidance, caches of steps."""
