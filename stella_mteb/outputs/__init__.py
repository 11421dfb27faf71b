"""Files of an output folder, read and written without MTEB."""
