"""The API of the in-house module that this project replaces."""
