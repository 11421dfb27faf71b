"""Which prompt a text gets."""
