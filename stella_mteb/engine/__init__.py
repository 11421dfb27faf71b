"""Turns texts into vectors; `encoder` has all steps from top to bottom. Imports no other room but `files`."""
