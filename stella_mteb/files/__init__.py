"""Reads and writes files of all formats, independently of embeddings."""
