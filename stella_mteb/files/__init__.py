"""Files of every kind; nothing here knows of embeddings."""
