"""Reads and writes the files of an output folder without MTEB."""
