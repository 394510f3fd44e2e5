"""STCN: keys of the frame alone, shared by all objects, read by distance."""
