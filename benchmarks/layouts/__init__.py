"""Random models in the real layouts of their repositories, written by code; the tests use them too."""
