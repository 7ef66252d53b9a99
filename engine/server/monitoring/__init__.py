"""What operators look at: health, metrics, log lines."""
