"""Pages that people keep: one HTML file each; it loads nothing, and nothing in it can act but its own script."""
