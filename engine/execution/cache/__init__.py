"""Results by content key: in memory, on disk, as bytes; and unfinished work."""
