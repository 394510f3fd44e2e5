"""Methods: one folder each, registered by name."""
