"""What starts engines."""
