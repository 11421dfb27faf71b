"""Scripts that measure; each says its command. Run from the top of the checkout with `python -m benchmarks.<name>`."""
