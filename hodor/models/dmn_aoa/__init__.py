"""DMN+AOA, re-interpreted: templates of each object, aligned to its search region."""
