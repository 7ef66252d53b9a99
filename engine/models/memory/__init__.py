"""Where weights are and in which precision; nothing about what they mean."""
