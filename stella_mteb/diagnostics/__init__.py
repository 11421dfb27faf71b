"""Checks models and machines, and measures speed."""
