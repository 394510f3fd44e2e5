"""HODOR: object descriptors by soft-masked attention, decoded into the masks of the next frame."""
