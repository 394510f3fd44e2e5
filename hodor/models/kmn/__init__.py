"""KMN: STM that reads its memory under a Gaussian kernel."""
