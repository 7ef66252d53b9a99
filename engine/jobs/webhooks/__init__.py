"""Telling a client's server what became of its job."""
