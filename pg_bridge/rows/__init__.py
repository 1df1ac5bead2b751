"""Row sets as columns of codes, each distinct row once."""
