"""Hosts: the adapters that know PostgreSQL's embeddings, and nothing else does."""
