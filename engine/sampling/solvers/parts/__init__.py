"""What the samplers share: stages, weights, tableaux and loops. Nothing here is a sampler; each file above it is."""
