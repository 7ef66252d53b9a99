"""Whatever runs jobs: a process of its own or this one, how the two sides speak, and what a worker does with a task."""
