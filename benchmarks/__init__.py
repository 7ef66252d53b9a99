"""Measurements side by side with peers, each in one run on the same inputs."""
