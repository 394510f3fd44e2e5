"""Sources, readers and clips: from archives to tensors."""
