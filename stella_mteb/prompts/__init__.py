"""Chooses the prompt of each text."""
