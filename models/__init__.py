"""The model in the box, and the recipe that makes it."""
