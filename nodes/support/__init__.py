"""What the node families share: wire types, widgets, the border to packs, picture files. Nothing here is a node."""
