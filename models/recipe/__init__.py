"""Makes the demonstration model from nothing: `python -m models.recipe DIRECTORY`."""
