"""What STM, KMN and STCN share: encoders, memory bank, readout, decoder, aggregation, loss and the method itself."""
