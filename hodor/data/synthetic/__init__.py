"""Synthetic data sets in the official archive layouts of COCO, DAVIS-2017, DAVIS-2016 and YouTube-VOS.

They show textured, non-rigid objects before photographs, in two worlds that share no photograph and no random number:

| archive | world | content |
|---|---|---|
| `train2017.zip`, `val2017.zip`, `annotations_trainval2017.zip` | train | images, a few grey, without object or with a crowd |
| `DAVIS-2017-trainval-480p.zip` | train: train, val: test | every frame and its mask |
| `DAVIS-2017-test-dev-480p.zip` | test | every frame and its mask |
| `DAVIS-data.zip` | as DAVIS-2017 | DAVIS-2016: the same sequences with masks of 0 and 255 |
| `train.zip` | train | every 5th frame of 30 a second, its mask, meta.json with categories |
| `valid.zip` | test | the same frames, masks where an object appears first, categories null |
| `valid_truth.zip` | test | the masks of all frames of `valid.zip`, meta.json with categories |

Unlike the official ones, test-dev has all masks and `valid_truth.zip` exists, so that every split can be scored.
Categories are the kinds of objects: one is in no video of YouTube-VOS train; `worm` is a category of the hold-out
(`hodor.config.benchmarks`). Distractors are background in the masks. The same options give the same bytes.
"""

from hodor.data.synthetic.archives import generate

__all__ = ["generate"]
