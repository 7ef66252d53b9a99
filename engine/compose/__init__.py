"""The parts put together for one process: a workspace, a worker, a server. Knows every layer, and no command line."""
