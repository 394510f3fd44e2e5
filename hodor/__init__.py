"""Reference reproduction of "Differentiable Soft-Masked Attention" (CVPR-W 2022) and HODOR."""

__version__ = "0.2.0"
