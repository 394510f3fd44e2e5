"""One small fixed computation for each recipe of `hodor.config.recipes`, compared with committed numbers."""
