"""Verbs for people, which no rule of the workflow calls: convert cost doctor track."""

import argparse
from collections.abc import Callable
from pathlib import Path

from hodor import paths


def add_parsers(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs; each sets `command`, a function of the parsed arguments. Modules are imported when called."""

    def add(verb: str, command: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        parser = verbs.add_parser(verb, help=about, description=about[0].upper() + about[1:] + ".")
        parser.set_defaults(command=command)
        return parser

    convert = add(
        "convert", _convert, "turn an original checkpoint into a file of ours, or back, and report every entry"
    )
    convert.add_argument("source", type=Path, help="a checkpoint (.pth, .pt, .pkl, .bin) or a .safetensors of ours")
    convert.add_argument("target", type=Path, help="the file to write, of the other kind")
    convert.add_argument("--format", help="kind of the checkpoint; told from its entries if absent")

    cost = add("cost", _cost, "count what the rows of a scale take: operations, GPU hours, memory, disk")
    cost.add_argument("--scale", default="paper", help="a file of config/scales, without its ending")
    cost.add_argument("--rows", default="main", help="as `rows` of config/config.yaml, separated by commas")
    cost.add_argument("--gpu", default="h200", help="h200 or rtx3090, or any name with --speed")
    cost.add_argument("--speed", type=float, help="10^12 operations a second that a training reaches")
    cost.add_argument("--frames", action="store_true", help="segment one frame with each network too (slow)")

    doctor = add(
        "doctor", _doctor, "check packages, GPU, disk, data, weights and results, and show how to fix what is wrong"
    )
    doctor.add_argument("--scale", help="a file of config/scales, without its ending; config.yaml's if absent")
    doctor.add_argument("--rows", help="as `rows` of config/config.yaml, separated by commas")
    doctor.add_argument("--mirror", help="as `mirror` of config/config.yaml")
    doctor.add_argument("--deep", action="store_true", help="compare every checksum, of large data too")
    for parser in (cost, doctor):
        parser.add_argument(
            "--config", type=Path, default=paths.config(), help="folder of the configuration (default: config)"
        )

    track = add("track", _track, "follow objects, given by masks, through a video of your own")
    track.add_argument("video", type=Path, help="a video file, or a folder of images in natural order")
    track.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="[FRAME=]FILE",
        help="palette or grey PNG, pixel = object number: of the first frame, or of FRAME (a name, or a number from 0)",
    )
    track.add_argument(
        "--ignore-followed", action="store_true", help="leave out objects of later masks that are followed already"
    )
    track.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="a run folder, a .safetensors of ours, or the authors' checkpoint of HODOR, STM or STCN",
    )
    track.add_argument("--out", type=Path, required=True, help="folder for masks/ and overlay.mp4, absent or empty")
    track.add_argument("--device", choices=("cpu", "cuda"), help="the GPU if there is one")
    track.add_argument("--threads", type=int, help="threads on the CPU; all cores if absent")
    track.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), help="that of the run if absent")
    track.add_argument("--fps", type=float, help="frames a second of the overlay; those of the video if absent")
    track.add_argument("--short-side", type=int, help="pixels that the short side is resized to, as --set short_side=")
    track.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an inference setting instead of the one that the weights were scored with, such as temporal_window=7",
    )


def _convert(options: argparse.Namespace) -> None:
    from hodor.cli.convert import convert

    convert(options.source, options.target, options.format)


def _cost(options: argparse.Namespace) -> None:
    from hodor.doctor.cost import cost

    overrides = {"scale": options.scale, "rows": options.rows}
    print(cost(options.config, overrides, options.gpu, options.speed, frames=options.frames))


def _doctor(options: argparse.Namespace) -> None:
    from hodor.doctor.checks import doctor

    given = {"scale": options.scale, "rows": options.rows, "mirror": options.mirror}
    overrides = {key: value for key, value in given.items() if value is not None}
    doctor(options.config, overrides, deep=options.deep)


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
