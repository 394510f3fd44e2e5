"""Verbs for people, which no rule of the workflow calls: convert cost doctor export verify import track."""

import argparse
from pathlib import Path

from hodor.cli.steps import add_config, add_verb


def add_parsers(verbs: argparse._SubParsersAction) -> None:
    """Add the parsers of the verbs. Their modules are imported when a verb runs, so that `--help` is fast."""
    convert = add_verb(
        verbs, _convert, "convert", "Convert an original checkpoint to .safetensors or back, or a run for others."
    )
    convert.add_argument(
        "source", type=Path, metavar="SOURCE", help="a .pth, .pt, .pkl or .bin, a .safetensors, or a run folder"
    )
    convert.add_argument(
        "target", type=Path, metavar="TARGET", help="file of the other kind; of a run a new folder, with a model card"
    )
    convert.add_argument("--format", metavar="ID", help="format of the checkpoint (default: detected)")
    convert.add_argument("--half", action="store_true", help="of a run: store float16 weights, in half the size")

    cost = add_verb(verbs, _cost, "cost", "Estimate GPU hours, memory and disk space of the rows of a scale.")
    cost.add_argument("--scale", default="paper", metavar="NAME", help="scale of config/scales (default: paper)")
    cost.add_argument("--rows", default="main", metavar="ROWS", help="as `rows` of config.yaml (default: main)")
    cost.add_argument("--gpu", default="h200", metavar="NAME", help="h200 (default), rtx3090, or any name with --speed")
    cost.add_argument("--speed", type=float, metavar="TFLOPS", help="10^12 operations per second that training reaches")
    cost.add_argument("--frames", action="store_true", help="count the operations of a segmented frame too (slow)")
    add_config(cost)

    doctor = add_verb(
        verbs, _doctor, "doctor", "Check packages, GPU, disk, data and results, and show how to fix faults."
    )
    doctor.add_argument("--scale", metavar="NAME", help="scale of config/scales (default: that of config.yaml)")
    doctor.add_argument("--rows", metavar="ROWS", help="as `rows` of config.yaml")
    doctor.add_argument("--mirror", metavar="PLACE", help="as `mirror` of config.yaml")
    doctor.add_argument("--deep", action="store_true", help="compare files with their recorded checksums")
    add_config(doctor)

    export = add_verb(verbs, _export, "export", "Write runs, or all results of a scale, to an RO-Crate for an archive.")
    export.add_argument("out", type=Path, metavar="OUT.zip", help="zip to write")
    export.add_argument("runs", nargs="*", metavar="ROW/seedK", help="default: all runs, tables and pages")
    export.add_argument("--scale", metavar="NAME", help="scale of config/scales (default: that of config.yaml)")
    add_config(export)

    verify = add_verb(
        verbs, _verify, "verify", "Check run folders, from any machine, against their records and settings."
    )
    importing = add_verb(verbs, _import, "import", "Verify runs that were trained elsewhere and copy them to runs/.")
    importing.add_argument("--force", action="store_true", help="replace other runs of the same rows and seeds")
    for parser in (verify, importing):
        parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, <row>/seed<k>")
        parser.add_argument("--mirror", metavar="PLACE", help="as `mirror` of config.yaml")
        add_config(parser)

    track = add_verb(verbs, _track, "track", "Track objects, given by masks or boxes, through your own video.")
    track.add_argument("video", type=Path, metavar="VIDEO", help="video file, or folder of images in natural order")
    track.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="[FRAME=]FILE",
        help="PNG of object ids, of the first frame or of FRAME (name, or number from 0); may be repeated",
    )
    track.add_argument(
        "--box",
        action="append",
        default=[],
        metavar="[FRAME=]X,Y,W,H",
        help="box around an object in pixels, instead of a mask: left, top, width, height; the nth box is object n",
    )
    track.add_argument("--ignore-tracked", action="store_true", help="skip objects of later masks that are tracked")
    track.add_argument(
        "--weights",
        metavar="PATH",
        help="run folder, .safetensors, the authors' checkpoint of HODOR, STM or STCN, or owner/name on the Hugging Face "
        "Hub (default: the checkpoint in the package)",
    )
    track.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder for masks/ and overlay.mp4 (default: <VIDEO>-tracked)"
    )
    track.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    track.add_argument("--threads", type=int, metavar="N", help="threads on the CPU (default: all cores)")
    track.add_argument(
        "--precision",
        choices=("float32", "tf32", "bfloat16"),
        help="default: bfloat16 for HODOR on a CPU that is faster in it (AMX), else that of the run",
    )
    track.add_argument("--fps", type=float, metavar="F", help="frames per second of the overlay (default: the video's)")
    track.add_argument("--short-side", type=int, metavar="N", help="short side of a frame in pixels")
    track.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="inference setting, such as temporal_window=7 (default: those of the run); may be repeated",
    )


def _given(options: argparse.Namespace, *keys: str) -> dict[str, str]:
    """Return the keys of config.yaml that the command line sets."""
    return {key: value for key in keys if (value := getattr(options, key)) is not None}


def _convert(options: argparse.Namespace) -> None:
    from hodor.cli.convert import convert

    convert(options.source, options.target, options.format, half=options.half)


def _cost(options: argparse.Namespace) -> None:
    from hodor.doctor.cost import cost

    overrides = {"scale": options.scale, "rows": options.rows}
    print(cost(options.config, overrides, options.gpu, options.speed, frames=options.frames))


def _doctor(options: argparse.Namespace) -> None:
    from hodor.doctor.checks import doctor

    doctor(options.config, _given(options, "scale", "rows", "mirror"), deep=options.deep)


def _export(options: argparse.Namespace) -> None:
    from hodor.cli.export import export

    count = export(options.out, options.config, options.scale, options.runs)
    print(f"{options.out}: RO-Crate of {count} files")


def _verify(options: argparse.Namespace) -> None:
    from hodor.doctor.verify import verify

    verify(options.runs, options.config, _given(options, "mirror"))


def _import(options: argparse.Namespace) -> None:
    from hodor.doctor.verify import import_runs

    import_runs(options.runs, options.config, _given(options, "mirror"), force=options.force)


def _track(options: argparse.Namespace) -> None:
    from hodor.errors import HodorError
    from hodor.gpus import take
    from hodor.inference.track_video import track_video

    settings = {}
    for entry in options.set:
        key, equals, value = entry.partition("=")
        if not equals:
            raise HodorError(f"--set {entry}: must be KEY=VALUE, such as temporal_window=7")
        settings[key] = None if value.lower() in ("none", "null") else value
    if options.short_side is not None:
        settings["short_side"] = options.short_side
    if options.device != "cpu":
        take(advice="; --device cpu needs none")
    out = options.out or Path(f"{options.video.resolve().stem}-tracked")
    track_video(
        options.video,
        options.mask,
        options.weights,
        out,
        device=options.device,
        threads=options.threads,
        precision=options.precision,
        rate=options.fps,
        boxes=options.box,
        ignore_tracked=options.ignore_tracked,
        settings=settings,
    )
    print(f"{out}: masks/, overlay.mp4, track.json")
