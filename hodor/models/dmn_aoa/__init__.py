"""DMN+AOA, re-interpreted from its abstract: templates of each object, aligned to the region where it is looked for."""
