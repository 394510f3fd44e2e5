"""Training: the loop, its data-parallel workers, gradients, optimiser, checkpoints and log."""
