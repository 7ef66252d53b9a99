"""The demo checkpoint: the pictures it learns from, how it is trained, and how its obedience is measured."""
