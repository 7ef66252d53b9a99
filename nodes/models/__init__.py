"""Weight files to models and back: loading, adapters, merging, saving, what a model says of its noise levels."""
