"""Copies chunks with their embeddings from the core's own stores into this backend."""
