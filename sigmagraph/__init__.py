"""sigmagraph: a node-graph image generation backend with its own sampler core.

`sigmagraph.engine` and `sigmagraph.nodes` are relative links to the repository's folders `engine/` and `nodes/`.
"""
