"""Accounts, keys and credits."""
