"""Self-contained HTML pages: one file each, which loads nothing and runs only its own script."""
