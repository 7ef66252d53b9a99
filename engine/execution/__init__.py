"""Runs a plan: order, lanes, cache and events. Values on edges are opaque here; no torch."""
