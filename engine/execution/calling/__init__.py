"""One node being called: its arguments, its hidden values, and its work step by step."""
