"""The memory network: what STM, KMN and STCN compute, for batches of frames with K objects each.

Legend: B batch, K objects, G sets of keys (1 where the objects share the frame's, else K), T frames, C channels, H W
padded frame, h w key grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import MemoryOptions
from hodor.models.memory.aggregate import aggregate
from hodor.models.memory.blocks import KeyValue, MemoryEncoder, Query, build_backbone
from hodor.models.memory.decoder import Decoder
from hodor.models.memory.readout import dense_readout


class Network(nn.Module):
    """Encoders, heads and decoder of one memory network (baselines specification, section 6)."""

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__()
        self.options = options
        self.shared = options.memory_encoder == "fused"
        encoder = None if options.one_encoder else build_backbone(options, memory=False)
        self.query_encoder = encoder
        self.memory_encoder = MemoryEncoder(options, 0 if encoder is None else encoder.channels[-1])
        *skips, coarse = (self.memory_encoder.backbone if encoder is None else encoder).channels
        self.query_head = KeyValue(coarse, options, orthogonal=self.shared)
        self.decoder = Decoder(options, tuple(skips))

    def query(self, frames: Tensor) -> Query:
        """What a frame is without masks; normalised frames (B, 3, H, W), sides multiples of the key grid's stride."""
        if self.query_encoder is None:
            masks = self.memory_encoder.backbone.stem.in_channels - 3
            fine, middle, coarse = self.memory_encoder.backbone(functional.pad(frames, (0, 0, 0, 0, 0, masks)))
        else:
            fine, middle, coarse = self.query_encoder(frames)
        return Query(frames, (fine, middle), coarse, *self.query_head(coarse))

    def memorise(self, frames: Tensor, masks: Tensor, query: Query | None) -> tuple[Tensor, Tensor]:
        """Key (B, G, Ck, h, w) and value (B, K, Cv, h, w) of frames under masks (B, K, H, W).

        `query` is that of the frames; a network with separate encoders does not read it.
        """
        own = self.query_head.key if self.options.one_encoder else None
        key, value = self.memory_encoder(frames, query.coarse if self.shared else None, masks, own)
        return (query.key.unsqueeze(1) if self.shared else key), value

    def segment(self, query: Query, read: Tensor) -> Tensor:
        """Logits (B, 1 + K, H, W) of frames whose objects read (B, K, Cv, h, w); softmax gives the distribution."""
        return aggregate(self.decoder(query, read))

    def clip(self, frames: Tensor, masks: Tensor) -> list[Tensor]:
        """Segment a training clip: frame 0 is given, each further one reads all before it.

        What is predicted goes into the memory as it is, soft and attached (baselines specification, section 1.2).

        Args:
            frames: normalised (B, T, 3, H, W).
            masks: (B, K, H, W) of frame 0.

        Returns:
            Logits (B, 1 + K, H, W) of the frames 1 to T - 1.
        """
        batch, count = frames.shape[:2]
        first = 0 if self.shared else 1  # a separate encoder needs nothing of frame 0 without its masks
        queries = self.query(frames[:, first:].transpose(0, 1).flatten(0, 1))
        query = [
            queries.frames((t - first) * batch, (t - first + 1) * batch) if t >= first else None for t in range(count)
        ]
        keys, values, logits = [], [], []
        for t in range(1, count):
            key, value = self.memorise(frames[:, t - 1], masks, query[t - 1])
            keys.append(key)
            values.append(value)
            read = dense_readout(
                torch.stack(keys, 3), torch.stack(values, 3), query[t].key, similarity=self.options.similarity
            )
            logits.append(self.segment(query[t], read))
            masks = functional.softmax(logits[-1], dim=1)[:, 1:]
        return logits
