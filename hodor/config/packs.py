"""Which packs a training stage reads, and at what size they store an image (light: the workflow reads it at every start).

A pack is one split of one data set at one rule of sizes. Stages with the same rule share it.
"""

from typing import NamedTuple

from hodor.config.stages import StageOptions

Rule = dict[str, int]
"""Greatest size of a stored image: {} (its own), {"pixels": n} or {"short_side": n}, the latter with "long_side"."""

# STCN's clips enlarge the crop by up to this factor (hodor.data.clips_static.SCALE).
STCN_ENLARGES = 1.5


class PackId(NamedTuple):
    """What a pack holds."""

    dataset: str
    split: str
    rule: Rule

    @property
    def name(self) -> str:
        """`coco-train2017-whole`, `coco-train2017-pixels300000`, `davis-train-short576-long1200`."""
        sizes = [f"{key.partition('_')[0]}{value}" for key, value in self.rule.items()]
        return "-".join([self.dataset, self.split, *(sizes or ["whole"])])


def packs(stage: StageOptions | None) -> tuple[PackId, ...]:
    """Return the packs that a stage reads, one for each of its sources; none where it reads plain data."""
    if stage is None or stage.packed is None:
        return ()
    rule = size_rule(stage)
    return tuple({id.name: id for id in (PackId(s.dataset, s.split, rule) for s in stage.sources)}.values())


def size_rule(stage: StageOptions) -> Rule:
    """Return the size rule of a packed stage."""
    margin = stage.packed.margin if stage.packed else None
    if margin is None or stage.kind == "static-affine":
        return {}
    if stage.kind == "static-stcn":
        return {"short_side": round(margin * STCN_ENLARGES * stage.crop)}
    if stage.pixels is not None:
        return {"pixels": round(margin**2 * stage.pixels)}
    rule = {"short_side": round(margin * stage.short_side)}
    if stage.long_side is not None:
        rule["long_side"] = round(margin * stage.long_side)
    return rule


def stored_size(size: tuple[int, int], rule: Rule) -> tuple[int, int]:
    """Return height and width at which an image of `size` is stored: never larger than it is."""
    scale = 1.0
    if "pixels" in rule:
        scale = min(scale, (rule["pixels"] / (size[0] * size[1])) ** 0.5)
    if "short_side" in rule:
        scale = min(scale, rule["short_side"] / min(size))
    if "long_side" in rule:
        # Both must hold, as in `clip_size`: the smaller scale wins.
        scale = min(scale, rule["long_side"] / max(size))
    return size if scale == 1.0 else (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
