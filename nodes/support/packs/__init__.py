"""Our values as node packs handle them: objects with ComfyUI's methods, which become values again when they return."""
