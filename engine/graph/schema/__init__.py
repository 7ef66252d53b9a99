"""Node classes of the newer schema: what they declare themselves with (`io`), and how they become `Node` objects."""
