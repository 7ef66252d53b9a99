"""Pictures of strangers, decoded outside the server: in few processes, for a bounded time, within one budget."""
