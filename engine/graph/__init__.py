"""Documents, node declarations, validation and planning. Knows no torch and no other layer of the engine."""
