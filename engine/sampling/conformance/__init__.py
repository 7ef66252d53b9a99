"""What can be proven of a sampler without a model: problems with exact answers, laws over them, a report."""
