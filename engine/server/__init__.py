"""The HTTP front: protocol adapters over the job service. No torch and no node code is ever imported here."""
