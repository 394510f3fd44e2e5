"""STM, KMN and STCN: memory bank, readout, network and methods."""
