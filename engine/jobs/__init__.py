"""The one job service: durable queue, history, events, artifacts, accounts, workers. Every protocol is an adapter."""
