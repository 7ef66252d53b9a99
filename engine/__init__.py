"""sigmagraph: a node-graph image generation backend with a sampler core of its own."""
