"""ComfyUI's HTTP and WebSocket protocol. Its words stop in this package; the rest of the server speaks of jobs."""
