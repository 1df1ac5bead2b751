"""The Multicorn host."""
