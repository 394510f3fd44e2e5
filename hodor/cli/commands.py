"""Verbs for people, which no rule of the workflow calls: convert cost doctor track."""

import argparse
from pathlib import Path

from hodor import paths


def add_parsers(verbs: argparse._SubParsersAction) -> None:
    """Adds the verbs to those of the steps; each sets `command`, a function of the parsed arguments."""
    _add_convert(verbs)
    _add_cost(verbs)
    _add_doctor(verbs)
    _add_track(verbs)


def _add_convert(verbs: argparse._SubParsersAction) -> None:
    about = "turn an original checkpoint into a file of ours, or back, and report every entry"
    parser = verbs.add_parser("convert", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("source", type=Path, help="a checkpoint (.pth, .pt, .pkl, .bin) or a .safetensors of ours")
    parser.add_argument("target", type=Path, help="the file to write, of the other kind")
    parser.add_argument("--format", help="kind of the checkpoint; told from its entries if absent")
    parser.set_defaults(command=_convert)


def _convert(options: argparse.Namespace) -> None:
    from hodor.cli.convert import convert

    convert(options.source, options.target, options.format)


def _add_cost(verbs: argparse._SubParsersAction) -> None:
    about = "count what the rows of a scale take: operations, GPU hours, memory, disk"
    parser = verbs.add_parser("cost", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("--scale", default="paper", help="a file of config/scales, without its ending")
    parser.add_argument("--rows", default="main", help="as `rows` of config/config.yaml, separated by commas")
    parser.add_argument("--gpu", default="h200", help="h200 or rtx3090, or any name with --speed")
    parser.add_argument("--speed", type=float, help="10^12 operations a second that a training reaches")
    parser.add_argument("--frames", action="store_true", help="segment one frame with each network too (slow)")
    parser.add_argument(
        "--config", type=Path, default=paths.config(), help="folder of the configuration (default: config)"
    )
    parser.set_defaults(command=_cost)


def _cost(options: argparse.Namespace) -> None:
    from hodor.doctor.cost import cost

    overrides = {"scale": options.scale, "rows": options.rows}
    print(cost(options.config, overrides, options.gpu, options.speed, frames=options.frames))


def _add_doctor(verbs: argparse._SubParsersAction) -> None:
    about = "check packages, GPU, disk, data, weights and results, and show how to fix what is wrong"
    parser = verbs.add_parser("doctor", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("--scale", help="a file of config/scales, without its ending; config.yaml's if absent")
    parser.add_argument("--rows", help="as `rows` of config/config.yaml, separated by commas")
    parser.add_argument("--mirror", help="as `mirror` of config/config.yaml")
    parser.add_argument("--deep", action="store_true", help="compare every checksum, of large data too")
    parser.add_argument(
        "--config", type=Path, default=paths.config(), help="folder of the configuration (default: config)"
    )
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    from hodor.doctor.command import doctor

    given = {"scale": options.scale, "rows": options.rows, "mirror": options.mirror}
    overrides = {key: value for key, value in given.items() if value is not None}
    doctor(options.config, overrides, deep=options.deep)


def _add_track(verbs: argparse._SubParsersAction) -> None:
    about = "follow objects, given by masks, through a video of your own"
    parser = verbs.add_parser("track", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("video", type=Path, help="a video file, or a folder of images in natural order")
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="[FRAME=]FILE",
        help="palette or grey PNG, pixel = object number: of the first frame, or of FRAME (a name, or a number from 0)",
    )
    parser.add_argument(
        "--ignore-followed", action="store_true", help="leave out objects of later masks that are followed already"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="a run folder, a .safetensors of ours, or the authors' checkpoint of HODOR, STM or STCN",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for masks/ and overlay.mp4, absent or empty")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU if there is one")
    parser.add_argument("--threads", type=int, help="threads on the CPU; all cores if absent")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), help="that of the run if absent")
    parser.add_argument("--fps", type=float, help="frames a second of the overlay; those of the video if absent")
    parser.add_argument("--short-side", type=int, help="pixels that the short side is resized to, as --set short_side=")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an inference setting instead of the one that the weights were scored with, such as temporal_window=7",
    )
    parser.set_defaults(command=_track)


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
    track_video(
        options.video,
        options.mask,
        options.weights,
        options.out,
        device=options.device,
        threads=options.threads,
        precision=options.precision,
        rate=options.fps,
        ignore_followed=options.ignore_followed,
        settings=settings,
    )
    print(f"{options.out}: masks/, overlay.mp4, track.json")
