"""Weight files: reading, recognising and renaming; no torch module is built here."""
