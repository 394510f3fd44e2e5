"""STM: a memory of masked frames, read by softmax over all of its cells.

"Video Object Segmentation using Space-Time Memory Networks" (Oh et al., ICCV 2019, arXiv 1904.00607). Published from
static images alone: 60.0 J&F on DAVIS-2017 val; the preparation of the data leaves 50 to 70 open. 38.93 M parameters at
paper size, 256 GFLOP forward for a training clip with one object at 384x384.
"""

from hodor.config.methods import STMOptions
from hodor.models.base import register
from hodor.models.memory.method import MemoryMethod


@register("stm")
class STM(MemoryMethod):
    """Separate encoders, scaled dot product, every fifth frame and the previous one in the memory."""

    options_class = STMOptions
    pads_black = True
