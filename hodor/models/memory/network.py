"""The network of STM, KMN and STCN, for batches of frames with K objects each.

Legend: B batch, K objects, G sets of keys (1 if the objects share the frame's, else K), T frames, C channels, H W
padded frame, h w key grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hodor.config.methods import MemoryOptions
from hodor.models.frames import split
from hodor.models.memory.blocks import KeyValue, MemoryEncoder, Query, ResidualBlock, build_backbone
from hodor.models.memory.readout import dense_readout

# In half precision 1 - EPSILON would be 1 and the logit infinite: aggregation is in float32.
EPSILON = 1e-7


def aggregate(p: Tensor) -> Tensor:
    """Aggregate probabilities of single objects (B, K, H, W) to logits (B, 1 + K, H, W), channel 0 background.

    The background's probability is that of no object, and softmax over the logits is the distribution (baselines
    specification, section 1.1). For one object that is sigmoid(2 logit(p)), sharper than p.
    """
    p = p.float()
    p = torch.cat([(1 - p).prod(1, keepdim=True), p], dim=1).clamp(EPSILON, 1 - EPSILON)
    return torch.log(p) - torch.log1p(-p)


class Level(nn.Module):
    """Upsample x (B K, C, h, w) by 2 and add a map (B, C', 2h, 2w) shared by the objects of a frame."""

    def __init__(self, skip: nn.Module, out: nn.Module) -> None:
        super().__init__()
        self.skip, self.out = skip, out

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        skip = self.skip(skip)
        return self.out((x.unflatten(0, (len(skip), -1)) + skip.unsqueeze(1)).flatten(0, 1))


class Decoder(nn.Module):
    """Decoder of STM or STCN; `fine` and `middle` are the channels of the maps at strides 4 and 8."""

    def __init__(self, options: MemoryOptions, fine: int, middle: int) -> None:
        super().__init__()
        inputs, dim = 2 * options.value_dim, options.decoder_dim
        self.stride = options.stride
        if options.decoder == "stm":
            self.compress = nn.Sequential(_convolution(inputs, dim), ResidualBlock(dim, dim))
            skip = [nn.Sequential(_convolution(width, dim), ResidualBlock(dim, dim)) for width in (middle, fine)]
            out = [ResidualBlock(dim, dim), ResidualBlock(dim, dim)]
        else:
            self.compress = ResidualBlock(inputs, 2 * dim)
            skip = [_convolution(middle, 2 * dim), _convolution(fine, dim)]
            out = [ResidualBlock(2 * dim, dim), ResidualBlock(dim, dim)]
        self.levels = nn.ModuleList(Level(*pair) for pair in zip(skip, out, strict=True))
        # STM: logits of the rest and of the object; STCN: of the object.
        self.predict = _convolution(dim, 2 if options.decoder == "stm" else 1)

    def forward(self, query: Query, read: Tensor) -> Tensor:
        """Decode each object's readout (B, K, Cv, h, w) to a probability, (B, K, H, W) in float32."""
        value = query.value.unsqueeze(1).expand(-1, read.shape[1], -1, -1, -1)
        x = self.compress(torch.cat([read.to(value.dtype), value], dim=2).flatten(0, 1))
        for level, skip in zip(self.levels, (query.middle, query.fine), strict=True):
            x = level(x, skip)
        logits = self.predict(functional.relu(x)).float()
        logits = functional.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=False)
        p = functional.softmax(logits, dim=1)[:, 1] if logits.shape[1] == 2 else torch.sigmoid(logits[:, 0])
        return p.unflatten(0, read.shape[:2])


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Network(nn.Module):
    """Encoders, heads and decoder of one memory network (baselines specification, section 6)."""

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__()
        self.options = options
        self.shared = options.memory_encoder == "fused"
        encoder = None if options.one_encoder else build_backbone(options, memory=False)
        self.query_encoder = encoder
        self.memory_encoder = MemoryEncoder(options, 0 if encoder is None else encoder.channels[-1])
        fine, middle, coarse = (self.memory_encoder.backbone if encoder is None else encoder).channels
        self.query_head = KeyValue(coarse, options, orthogonal=self.shared)
        self.decoder = Decoder(options, fine, middle)

    def query(self, frames: Tensor) -> Query:
        """Encode normalised frames (B, 3, H, W) whose sides are multiples of the key grid's stride."""
        if self.query_encoder is None:
            masks = self.memory_encoder.backbone.stem.in_channels - 3
            maps = self.memory_encoder.backbone(functional.pad(frames, (0, 0, 0, 0, 0, masks)))
        else:
            maps = self.query_encoder(frames)
        return Query(frames, *maps, *self.query_head(maps[-1]))

    def memorise(self, frames: Tensor, masks: Tensor, query: Query | None) -> tuple[Tensor, Tensor]:
        """Return key (B, G, Ck, h, w) and value (B, K, Cv, h, w) of frames with masks (B, K, H, W).

        `query` is the encoding of the frames; separate encoders do not need it.
        """
        encoder, objects = self.memory_encoder, masks.shape[:2]
        masked = encoder(frames, masks)
        if self.shared:
            coarse = query.coarse.unsqueeze(1).expand(-1, objects[1], -1, -1, -1).flatten(0, 1)
            return query.key.unsqueeze(1), encoder.fuser(masked, coarse).unflatten(0, objects)
        key, value = encoder.head(masked, self.query_head.key if self.options.one_encoder else None)
        return key.unflatten(0, objects), value.unflatten(0, objects)

    def segment(self, query: Query, read: Tensor) -> Tensor:
        """Decode the readout (B, K, Cv, h, w) to logits (B, 1 + K, H, W)."""
        return aggregate(self.decoder(query, read))

    def clip(self, frames: Tensor, masks: Tensor) -> list[Tensor]:
        """Segment a training clip: each frame reads all previous ones, with the masks of frame 0 given.

        Predictions are memorised soft and attached (baselines specification, section 1.2).

        Args:
            frames: normalised (B, T, 3, H, W).
            masks: (B, K, H, W) of frame 0.

        Returns:
            Logits (B, 1 + K, H, W) of the frames 1 to T - 1.
        """
        batch, count = frames.shape[:2]
        first = 0 if self.shared else 1  # separate encoders do not need frame 0 without masks
        query = [None] * first + split(self.query(frames[:, first:].transpose(0, 1).flatten(0, 1)), batch)
        keys, values, logits = [], [], []
        for t in range(1, count):
            key, value = self.memorise(frames[:, t - 1], masks, query[t - 1])
            keys.append(key)
            values.append(value)
            memory = torch.stack(keys, 3), torch.stack(values, 3)
            read = dense_readout(*memory, query[t].key, similarity=self.options.similarity)
            logits.append(self.segment(query[t], read))
            masks = functional.softmax(logits[-1], dim=1)[:, 1:]
        return logits
