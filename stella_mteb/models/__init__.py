"""From a spec to files to a loaded engine."""
