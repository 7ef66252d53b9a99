"""Pictures and masks: files, sizes, places, colours, filters, compositing, shaders."""
