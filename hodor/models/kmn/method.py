"""KMN: STM whose readout of a video stands under a Gaussian around each memory cell's best match.

"Kernelized Memory Network for Video Object Segmentation" (Seong et al., ECCV 2020, arXiv 2007.08270). Published from
static images alone: 68.9 J&F on DAVIS-2017 val. The network is STM's; Hide-and-Seek is a setting of the training stage.
"""

from hodor.config.methods import KMNOptions
from hodor.models.base import register
from hodor.models.memory.method import MemoryMethod


@register("kmn")
class KMN(MemoryMethod):
    """STM's network; the kernel is for inference alone, since the best match has no gradient."""

    options_class = KMNOptions
    pads_black = True
