"""Verbs for people: they take arguments and no stamp, and no rule of the workflow calls them.

    convert cost doctor track, and fetch where it has no stamp

Each adds its parser and names the function that does it; modules are imported when their verb is called.
"""

import argparse
from pathlib import Path


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
    parser.add_argument("--config", type=Path, default=Path("config"), help="folder of the configuration")
    parser.set_defaults(command=_cost)


def _cost(options: argparse.Namespace) -> None:
    from hodor.doctor.cost import cost

    overrides = {"scale": options.scale, "rows": options.rows}
    print(cost(options.config, overrides, options.gpu, options.speed, frames=options.frames))


def add_fetch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `hodor fetch` takes without a stamp."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="data sets of config/datasets.csv, `weights` or `all`; none: the scale's",
    )
    parser.add_argument("--scale", help="a file of config/scales, without its ending (config.yaml's if absent)")
    parser.add_argument("--mirror", help="folder or address that holds <data set>/<archive>, instead of every host")
    parser.add_argument("--wait", action="store_true", help="wait for what must be downloaded by hand")
    parser.add_argument("--config", type=Path, default=Path("config"), help="folder of the configuration")


def add_execution_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `hodor train` takes besides its stamp: fields of `hodor.config.execution.Execution`."""
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="of this machine that train together, on a GPU each"
    )
    parser.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="clips that a process computes at a time; all of its part if absent",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile for the layers that gain by it (GPU)")
    parser.add_argument("--deterministic", action="store_true", help="deterministic operators alone, on a GPU")


def fetch_named(options: argparse.Namespace) -> None:
    """`hodor fetch` without a stamp."""
    from hodor.cli.fetch import fetch_command
    from hodor.errors import HodorError

    if options.out is not None:
        raise HodorError("--out belongs to --stamp; without one the archives go where the workflow looks for them")
    fetch_command(options.names, options.config, options.scale, options.mirror, wait=options.wait)


def _add_doctor(verbs: argparse._SubParsersAction) -> None:
    about = (
        "check archives, data sets, weights, GPU, disk, packages; at scale paper try every row and project its costs"
    )
    parser = verbs.add_parser("doctor", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("--scale", help="a file of config/scales, without its ending; config.yaml's if absent")
    parser.add_argument("--rows", help="as `rows` of config/config.yaml, separated by commas")
    parser.add_argument("--mirror", help="as `mirror` of config/config.yaml")
    parser.add_argument("--deep", action="store_true", help="compare every checksum (reads all data)")
    parser.add_argument("--steps", type=int, help="training steps of each row to try (20 at scale paper, else 0)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="for each row, after which no further step is begun"
    )
    parser.add_argument("--config", type=Path, default=Path("config"), help="folder of the configuration")
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    from hodor.doctor.command import doctor

    given = {"scale": options.scale, "rows": options.rows, "mirror": options.mirror}
    overrides = {key: value for key, value in given.items() if value is not None}
    doctor(options.config, overrides, deep=options.deep, steps=options.steps, seconds=options.seconds)


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
