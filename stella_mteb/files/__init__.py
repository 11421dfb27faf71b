"""What touches a disk and knows nothing of embeddings."""
