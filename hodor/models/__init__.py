"""Methods, registered by name, and their building blocks."""
