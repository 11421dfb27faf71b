"""A model, a machine, and how fast the one is on the other."""
