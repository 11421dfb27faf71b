"""Confidence intervals and tests on plain arrays, used by `compare` and `judge`."""
