"""The verbs `doctor` and `cost`: whether this machine and its files are in order, and what training takes."""
