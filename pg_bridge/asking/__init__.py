"""From rows and a prompt to answers: the whole road."""
