"""Samplers of other projects, as files for `sigmagraph conform`."""
