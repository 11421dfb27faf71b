"""Turns a spec into files and files into a loaded engine."""
