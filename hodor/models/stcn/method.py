"""STCN: keys of the frame alone, so one affinity by squared distance serves all objects.

"Rethinking Space-Time Networks with Improved Memory Coverage for Efficient Video Object Segmentation" (Cheng et al.,
NeurIPS 2021, arXiv 2106.05210). Published from static images alone: 75.8 J&F on DAVIS-2017 val, 51.7 on test-dev.
54.43 M parameters at paper size, 279 GFLOP forward for a training clip with one object at 384x384.
"""

from hodor.config.methods import STCNOptions
from hodor.models.base import register
from hodor.models.memory.method import MemoryMethod


@register("stcn")
class STCN(MemoryMethod):
    """Fused value encoder, the twenty most similar cells, every fifth frame in the memory."""

    options_class = STCNOptions
