"""What holds before any route sees a request: connections, bodies, and the memory that they may take."""
