"""Command line: `vtoonify demo | image | video | models`.

One clear line on stderr and exit code 2 for anything the user can mend, 130 after Ctrl-C, and never a half-written file
under the final name. Heavy imports wait until a command runs, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from .config import VToonifyError

USAGE_ERROR, INTERRUPTED = 2, 130
METRICS_SHOWN = 4


class _Parser(argparse.ArgumentParser):
    """argparse with a single line for an error."""

    def error(self, message: str) -> None:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except VToonifyError as error:
        print(f"vtoonify: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("vtoonify: interrupted; no output was written", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `vtoonify models | head`
        sys.stderr.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vtoonify", description="Turn portrait pictures and clips into animation.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--bundle", default="studio-t", metavar="NAME",
                        help="model bundle: a name from `vtoonify models`, or a folder (default: %(default)s)")
    common.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    region = argparse.ArgumentParser(add_help=False)
    region.add_argument("--frame", choices=("crop", "full"), default="crop",
                        help="crop: the toonified region around the face; full: the whole picture with that region "
                             "blended in (default: %(default)s)")
    region.add_argument("--padding", type=float, metavar="PX",
                        help="pixels kept on each side of the eyes, where the eyes are a quarter of the model's input "
                             "size apart (default: 200/256 of the input size)")

    command = commands.add_parser("demo", parents=[common], help="toonify the sample clip that comes along")
    command.add_argument("out", nargs="?", default="out", metavar="OUT", help="output folder (default: %(default)s)")
    command.set_defaults(run=_demo)

    for name, what, run in (("image", "picture", _image), ("video", "clip, with its sound", _video)):
        command = commands.add_parser(name, parents=[common, region], help=f"toonify a {what}")
        command.add_argument("input", metavar="IN", help=f"{name} file")
        command.add_argument("output", metavar="OUT", help=f"{name} file to write; its ending says the format")
        command.set_defaults(run=run)

    command = commands.add_parser("models", parents=[common], help="list the model bundles on this machine")
    command.set_defaults(run=_models)
    return parser


def _demo(arguments: argparse.Namespace) -> None:
    from .pipeline import demo

    _report(demo(arguments.out, arguments.bundle, arguments.device, progress=sys.stderr.isatty()))


def _video(arguments: argparse.Namespace) -> None:
    from .pipeline import Toonifier, check_video_paths

    check_video_paths(arguments.input, arguments.output)  # before the model is loaded
    toonifier = Toonifier.load(arguments.bundle, arguments.device)
    _report(toonifier.video(arguments.input, arguments.output, arguments.frame, arguments.padding,
                             progress=sys.stderr.isatty()))


def _report(result) -> None:
    for sentence in result.warnings:
        print(f"vtoonify: note: {sentence}", file=sys.stderr)
    print(result)


def _image(arguments: argparse.Namespace) -> None:
    from .images import check_output, check_picture_name, read_image, write_image
    from .pipeline import Toonifier

    check_picture_name(check_output(arguments.output, arguments.input))  # before the model is loaded
    picture = read_image(arguments.input)
    toonifier = Toonifier.load(arguments.bundle, arguments.device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = toonifier.image(picture, arguments.frame, arguments.padding)
    for warning in caught:
        if warning.category is UserWarning:
            print(f"vtoonify: note: {warning.message}", file=sys.stderr)
    path = write_image(arguments.output, result)
    print(f"{path}: {result.shape[1]}×{result.shape[0]}")


def _models(arguments: argparse.Namespace) -> None:
    from .checkpoints import list_bundles, models_folders

    rows = [("NAME", "SIZE", "LICENCE", "ON DISK", "PIXELS", "NUMBERS")]
    for bundle in list_bundles():
        numbers = [f"{key} {value:.3g}" for key, value in bundle.metrics.items() if isinstance(value, int | float)]
        rows.append((bundle.name, f"{bundle.bytes / 1e6:.1f} MB", bundle.licence, bundle.problem() or "complete",
                     f"{bundle.config.in_size} → {bundle.config.out_size}", ", ".join(numbers[:METRICS_SHOWN]) or "-"))
    if len(rows) == 1:
        folders = ", ".join(map(str, models_folders()))
        raise VToonifyError(f"there is no bundle in {folders}; `make train-default` makes one")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
