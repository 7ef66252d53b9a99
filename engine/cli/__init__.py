"""The `sigmagraph` command: one file per command, and the one place that wires the layers together."""
