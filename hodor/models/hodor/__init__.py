"""HODOR: descriptors by soft-masked attention, decoded into the next frame."""
