"""How well a fast engine is fed: its model fitted to a GPU's runs, and every way to ask in front of it."""
