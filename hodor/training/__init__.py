"""Training: losses, schedule, checkpoints, the loop."""
