"""The only room that knows MTEB."""
