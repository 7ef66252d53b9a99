"""Prompts, tokens and text encoders. Importing this package does not import transformers; `text.encoders` does."""
