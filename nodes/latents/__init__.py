"""Latents: blank ones, the way to pictures and back, edits, files, previews."""
