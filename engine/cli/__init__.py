"""The `sigmagraph` command: one file per command. What a command puts together comes from `engine.compose`."""
