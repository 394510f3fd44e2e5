"""What may stand in config/, as pydantic models, and the reading of it. Nothing here imports torch."""
