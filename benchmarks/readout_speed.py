"""Compare the memory readout of a video with its dense published form: times, their ratio, extra memory, equality.

    python benchmarks/readout_speed.py          # 20 remembered frames of 480p, 3 objects: 2 minutes
    python benchmarks/readout_speed.py --device cuda

Dense: the scores of all memory cells to all query cells as one matrix; with top-k the weights are put back into it,
zeros elsewhere, and it is multiplied with each object's values. Keys and values are random, which is the worst case for
gathering: no two query cells read the same. Three readouts: `top-k` is STCN's (64 channels, squared distance, keys shared
by the objects), `softmax` STM's and `kernel` KMN's (128 channels, dot product, keys of each object). Equality is measured
against the largest value of the dense result; a query cell may read otherwise where the dense scores at rank k and k + 1
are equal up to rounding: such ties are counted, any other difference above 1e-5 ends the benchmark.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from harness import alternate, extra_memory_mib, script_parser, spread, write_result
from torch import Tensor

from hodor.models.memory.readout import Bank, chunked_readout

READOUTS = {
    "top-k": {"key_dim": 64, "shared": True, "similarity": "l2"},
    "softmax": {"key_dim": 128, "shared": False, "similarity": "dot"},
    "kernel": {"key_dim": 128, "shared": False, "similarity": "dot"},
}
SIGMA, VALUE_DIM = 7.0, 512
# Scores nearer than this, relative to the largest, are equal up to rounding; results further apart are a fault.
TIE, FAULT = 1e-6, 1e-5


def frames(readout: str, size: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """Keys (G, Ck, h, w) and values (K, Cv, h, w) of the remembered frames."""
    generator = torch.Generator().manual_seed(0)
    kind, grid = READOUTS[readout], (size.height, size.width)
    sets = 1 if kind["shared"] else size.objects
    return [
        (
            torch.randn(sets, kind["key_dim"], *grid, generator=generator).to(size.device),
            torch.randn(size.objects, VALUE_DIM, *grid, generator=generator).to(size.device),
        )
        for _ in range(size.frames)
    ]


def query_key(readout: str, size: argparse.Namespace) -> Tensor:
    """Key (Ck, h, w) of the frame that reads."""
    generator = torch.Generator().manual_seed(1)
    shape = (READOUTS[readout]["key_dim"], size.height, size.width)
    return torch.randn(shape, generator=generator).to(size.device)


def dense_scores(keys: Tensor, query: Tensor, similarity: str) -> Tensor:
    """(N, Q) of keys (Ck, N) to a query (Ck, h, w)."""
    products = keys.t() @ query.flatten(1)
    if similarity == "l2":
        products = 2 * products - keys.square().sum(0).unsqueeze(1)
    return products / len(query) ** 0.5


def gaussian(scores: Tensor, query: Tensor) -> Tensor:
    """KMN's (N, Q) around each memory cell's best match."""
    height, width = query.shape[1:]
    best = scores.argmax(1)
    rows = torch.arange(height, device=scores.device) - (best // width).unsqueeze(1)
    columns = torch.arange(width, device=scores.device) - (best % width).unsqueeze(1)
    rows, columns = ((-x.square() / (2 * SIGMA**2)).exp() for x in (rows, columns))
    return (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1)


@torch.inference_mode()
def dense(readout: str, keys: Tensor, values: Tensor, query: Tensor, top_k: int) -> Tensor:
    """(K, Cv, h, w) of keys (G, Ck, N) and values (K, Cv, N)."""
    out, weights = [], None
    for k, value in enumerate(values):
        if k < len(keys):
            weights = dense_scores(keys[k], query, READOUTS[readout]["similarity"])
            if readout == "top-k":
                scores, places = weights.topk(top_k, dim=0)
                weights.zero_().scatter_(0, places, scores.softmax(0))
            elif readout == "softmax":
                weights = weights.softmax(0)
            else:
                weights = weights.softmax(0) * gaussian(weights, query)
                weights /= weights.sum(0)
        out.append(value @ weights)
    return torch.stack(out).unflatten(2, query.shape[1:])


def prepare(way: str, readout: str, size: argparse.Namespace) -> Callable[[], Tensor]:
    """The call that reads a memory which is filled."""
    torch.backends.cuda.matmul.allow_tf32 = False
    remembered, query = frames(readout, size), query_key(readout, size)
    if way == "dense":
        keys, values = (torch.stack(x, 2).flatten(2) for x in zip(*remembered, strict=True))
        return partial(dense, readout, keys, values, query, size.top_k)
    bank = Bank(shared=READOUTS[readout]["shared"], limit=None)
    for t, (key, value) in enumerate(remembered):
        bank.add(t, key, value)
    return torch.inference_mode()(
        partial(
            chunked_readout,
            bank,
            query,
            similarity=READOUTS[readout]["similarity"],
            top_k=size.top_k if readout == "top-k" else 0,
            sigma=SIGMA if readout == "kernel" else None,
        )
    )


def compare(readout: str, ours: Tensor, theirs: Tensor, size: argparse.Namespace) -> tuple[float, int]:
    """Largest difference outside ties, relative to the largest value; number of query cells that differ by a tie.

    Raises:
        SystemExit: a difference that no tie explains.
    """
    apart = ((ours - theirs).abs().amax((0, 1)) / theirs.abs().max()).flatten()  # (Q)
    tied = torch.zeros_like(apart, dtype=torch.bool)
    if readout == "top-k" and size.top_k < size.frames * size.height * size.width:
        keys = torch.stack([key[0] for key, _ in frames(readout, size)], 1).flatten(1)
        scores = dense_scores(keys, query_key(readout, size), READOUTS[readout]["similarity"])
        last = scores.topk(size.top_k + 1, dim=0).values[-2:]
        tied = (last[0] - last[1] <= TIE * scores.abs().max()) & (apart > FAULT)
    largest = apart[~tied].max().item()
    if largest > FAULT:
        raise SystemExit(
            f"{readout}: the two ways differ by {largest:.1e} of the largest value where no tie explains it"
        )
    return largest, int(tied.sum())


def main() -> None:
    parser = script_parser(__doc__, device="cpu", rounds=7, threads=2)
    parser.add_argument("--frames", type=int, default=20, help="remembered")
    parser.add_argument("--height", type=int, default=30, help="cells: 480 pixels at stride 16")
    parser.add_argument("--width", type=int, default=54, help="cells: 854 pixels, padded to 864")
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--readouts", nargs="+", choices=READOUTS, default=list(READOUTS))
    size = parser.parse_args()
    torch.set_num_threads(size.threads)
    lines = [
        f"# Memory readout: {size.frames} frames of {size.height} x {size.width} cells, {size.objects} objects, "
        f"values of {VALUE_DIM} channels, top-k {size.top_k}",
        "",
        "| readout | dense, ms | ours, ms | times as fast (range) | dense, MiB more | ours, MiB more | times less memory "
        "| largest difference | ties |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for readout in size.readouts:
        ways = {way: prepare(way, readout, size) for way in ("dense", "ours")}
        difference, ties = compare(readout, ways["ours"](), ways["dense"](), size)
        times = alternate(ways, size.rounds)
        del ways
        memory = {way: extra_memory_mib(prepare, way, readout, size) for way in times}
        ratio = memory["dense"] / max(memory["ours"], 1e-3)
        lines.append(
            f"| {readout} | {1e3 * times['dense'].median:.0f} | {1e3 * times['ours'].median:.1f} "
            f"| {spread(times['ours'].faster_than(times['dense']))} | {memory['dense']:.0f} | {memory['ours']:.1f} "
            f"| {ratio:.1f} | {difference:.1e} | {ties} of {size.height * size.width} |"
        )
        print(lines[-1], flush=True)
    write_result("readout_speed", lines, size.out)


if __name__ == "__main__":
    main()
