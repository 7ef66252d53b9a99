"""Node classes of ComfyUI's convention: as nodes of ours, ours as classes of theirs, and the checks they bring."""
