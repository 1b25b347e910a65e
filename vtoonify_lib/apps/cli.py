"""Command line: `vtoonify demo | image | video | portrait | batch | styles | style | bench | models`.

One clear line on stderr and exit code 2 for anything the user can mend, 130 after Ctrl-C, and never a half-written file
under the final name. Heavy imports wait until a command runs, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import VToonifyError

if TYPE_CHECKING:
    from ..inference.toonifier import Toonifier
    from ..styles.recipe import Recipe
    from ..styles.request import Look

USAGE_ERROR, INTERRUPTED = 2, 130
STYLED = "looks"  # the bundle of ours that is used where a style is asked for
OTHERS_SHOWN = 8


class _Parser(argparse.ArgumentParser):
    """argparse with a single line for an error."""

    def error(self, message: str) -> None:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if argv is None:  # what a service manager or `timeout` sends ends the work as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments.run(arguments)
    except VToonifyError as error:
        print(f"vtoonify: {' '.join(str(error).split())}{_notes(error)}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt as stop:
        print(f"vtoonify: interrupted{_notes(stop) or '; no output was written'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `vtoonify models | head`
        sys.stderr.close()
    return 0


def _notes(error: BaseException) -> str:
    """Notes of an exception, such as which frames are kept."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vtoonify", description="Turn portrait pictures and clips into animation.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('vtoonify-lib')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for run, what, *groups in COMMANDS:
        command = commands.add_parser(run.__name__.removeprefix("_"), help=what)
        command.set_defaults(run=run)
        for group in groups:
            target = command.add_mutually_exclusive_group() if group is REMOVAL else command
            for name, how in group.items():
                target.add_argument(name, **how)
    return parser


# ---------------------------------------------------------------------------------------------- toonify
def _looks(arguments: argparse.Namespace) -> list[Look]:
    """The looks that were asked for; what a published preset cannot do is said before it is fetched."""
    from ..styles.request import Look
    from ..weights.published import PRESETS

    looks = [Look(style, arguments.structure, arguments.color, arguments.seed or 0)
             for style in arguments.style or [None]]
    for look in looks:
        if arguments.bundle in PRESETS:
            look.resolve_for_preset(PRESETS[arguments.bundle])
    return looks


def _faces(arguments: argparse.Namespace, frame: str) -> str | int:
    """Which faces to draw, checked before the model is fetched or loaded."""
    from ..styles.request import LARGEST, check_faces

    asked = arguments.faces or LARGEST
    faces = int(asked) if asked.isdecimal() else asked
    check_faces(faces, frame)
    if arguments.style and len(arguments.style) > 1 and faces in (LARGEST, 1):
        raise VToonifyError("several styles are for several people; ask for them with --faces all --frame full")
    return faces


def _recipe(arguments: argparse.Namespace) -> Recipe | None:
    """The recipe to replay, which then says what the options would say."""
    from ..styles.recipe import Recipe

    if arguments.recipe is None:
        return None
    given = [name for name in ("style", "structure", "color", "seed", "frame", "padding", "faces", "no_smooth")
             if getattr(arguments, name, None) not in (None, False)]
    if given:
        raise VToonifyError("a recipe decides everything about the picture; drop "
                            f"--{given[0].replace('_', '-')}, or --recipe")
    recipe = Recipe.load(arguments.recipe)
    arguments.bundle = arguments.bundle or recipe.bundle
    return recipe


def _fetch_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options for fetching a published bundle."""
    return {"source": arguments.source, "accept_licence": arguments.accept_licence, "progress": sys.stderr.isatty(),
            "tell": lambda line: print(line, file=sys.stderr)}


def _bundle(arguments: argparse.Namespace) -> str:
    from ..weights.bundle import DEFAULT_BUNDLE

    styled = any(getattr(arguments, name) is not None for name in ("style", "structure", "color", "seed"))
    return arguments.bundle or (STYLED if styled else DEFAULT_BUNDLE)


def _load_toonifier(arguments: argparse.Namespace) -> tuple[Toonifier, dict[str, Any]]:
    """The Toonifier, and the arguments for its `image` or `video`; saves the recipe if one is asked for."""
    from ..faces.crop import resolve_padding
    from ..inference.toonifier import Toonifier
    from ..media.images import check_output
    from ..styles.recipe import RECIPE_ENDINGS, Recipe

    resolve_padding(0, arguments.padding)  # before the model is fetched or loaded
    if arguments.save_recipe:
        check_output(arguments.save_recipe, endings=RECIPE_ENDINGS)
    recipe = _recipe(arguments)
    if recipe:
        how = recipe.arguments(clip=arguments.run is not _image)
        looks = [how.pop("look")]
    else:
        frame = arguments.frame or "crop"
        how = {"padding": arguments.padding, "frame": frame, "faces": _faces(arguments, frame)}
        how |= {} if arguments.run is _image else {"smooth": not arguments.no_smooth}
        looks = _looks(arguments)
    if arguments.save_recipe and len(looks) > 1:
        raise VToonifyError("a recipe holds the style of one person; drop --save-recipe, or all but one --style")
    toonifier = Toonifier.load(_bundle(arguments), arguments.device, **_fetch_options(arguments))
    if recipe:
        recipe.check(toonifier.bundle)
    looks = [toonifier.resolve(look) for look in looks]
    if arguments.run is _image:
        looks = [look.require_static() for look in looks]
    if arguments.save_recipe:
        Recipe.from_look(looks[0], **how).save(arguments.save_recipe)
    return toonifier, {"look": looks, **how}


def _demo(arguments: argparse.Namespace) -> None:
    from .demo import demo

    look, *more = _looks(arguments)
    if more:
        raise VToonifyError("the sample clip shows one person; give one --style")
    for result in demo(arguments.out, _bundle(arguments), arguments.device, look, **_fetch_options(arguments)):
        _report(result)


def _video(arguments: argparse.Namespace) -> None:
    from ..inference.video import check_video_paths

    check_video_paths(arguments.input, arguments.output)  # before the model is fetched or loaded
    toonifier, how = _load_toonifier(arguments)
    _report(toonifier.video(arguments.input, arguments.output, **how, card=arguments.card,
                            progress=sys.stderr.isatty()))


def _portrait(arguments: argparse.Namespace) -> None:
    from ..media.images import check_output, check_picture_name, write_image
    from ..studio.portraits import Portraitist

    out, how = arguments.output, (arguments.look, arguments.structure, arguments.color, arguments.size)
    check_picture_name(check_output(out, arguments.input))
    drawn = Portraitist(arguments.bundle).draw(arguments.input, *how)
    print(f"{write_image(out, drawn)}: {drawn.shape[1]}×{drawn.shape[0]}")


def _batch(arguments: argparse.Namespace) -> None:
    """All that a folder holds; exit code 1 when some of it could not be drawn."""
    from .batch import MANIFEST, batch, ignored_files

    *devices, arguments.device = arguments.device.split(",")
    devices = [*devices, arguments.device] if devices else []
    toonifier, how = _load_toonifier(arguments)
    outcomes = batch(arguments.input, arguments.output, toonifier, how,
                     arguments.workers, devices, arguments.ray, sys.stderr.isatty())
    failed = {name: outcome["error"] for name, outcome in outcomes.items() if "error" in outcome}
    for name, error in failed.items():
        print(f"vtoonify: {name}: {error}", file=sys.stderr)
    others = ignored_files(Path(arguments.input), Path(arguments.output))
    if others:
        shown = ", ".join(others[:OTHERS_SHOWN]) + ", …" * (len(others) > OTHERS_SHOWN)
        print(f"vtoonify: note: left alone, being neither clips nor pictures by their names: {shown}", file=sys.stderr)
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} files are in {arguments.output}; see {MANIFEST} there")
    if failed:
        sys.exit(1)


def _report(result) -> None:
    for sentence in result.warnings:
        print(f"vtoonify: note: {sentence}", file=sys.stderr)
    print(result)
    if result.card is not None:
        print(result.card)


def _image(arguments: argparse.Namespace) -> None:
    from ..media.images import check_output, check_picture_name, read_image, write_image

    check_picture_name(check_output(arguments.output, arguments.input))  # before the model is fetched or loaded
    picture = read_image(arguments.input)
    toonifier, how = _load_toonifier(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = toonifier.image(picture, **how)
    for warning in caught:
        if warning.category is UserWarning:
            print(f"vtoonify: note: {warning.message}", file=sys.stderr)
    path = write_image(arguments.output, result)
    print(f"{path}: {result.shape[1]}×{result.shape[0]}")


# ---------------------------------------------------------------------------------------------- styles
def _styles(arguments: argparse.Namespace) -> None:
    """Looks and their exemplars; the contact sheet."""
    import numpy as np

    from ..media.images import check_picture_name, write_image
    from ..styles.table import StyleTable, contact_sheet
    from ..weights.bundle import load_bundle
    from .listing import looks

    bundle = load_bundle(arguments.bundle)
    if not bundle.styles:
        raise VToonifyError(f"{bundle.name} has no styles to list; use --bundle {STYLED}, or see `vtoonify models`")
    styles = StyleTable(bundle)
    print(looks(styles))
    if arguments.sheet:
        path = check_picture_name(arguments.sheet)
        path.parent.mkdir(parents=True, exist_ok=True)
        print(write_image(path, np.asarray(contact_sheet(styles))))


def _style(arguments: argparse.Namespace) -> None:
    """The style of a picture as a file."""
    from ..inference.toonifier import Toonifier
    from ..media.images import check_output
    from ..styles.table import STYLE_SUFFIX, save_style
    from ..training.style_fitting import fitter

    check_output(arguments.output, endings=(STYLE_SUFFIX,))  # before the work is done
    toonifier = Toonifier.load(arguments.bundle, arguments.device)
    style = toonifier.style_of(arguments.input, fit=fitter(arguments.refine))
    print(save_style(arguments.output, style, toonifier.bundle))


def _bench(arguments: argparse.Namespace) -> None:
    """The report, and its JSON."""
    import json

    from ..media.images import check_output
    from . import bench

    if arguments.rounds < 1:
        raise VToonifyError(f"--rounds is {arguments.rounds}; it must be at least 1")
    path = check_output(arguments.json) if arguments.json else None  # before the work is done
    report = bench.run(arguments.bundle, arguments.side, arguments.rounds, arguments.device)
    print(bench.as_text(report))
    if path:
        path.write_text(json.dumps(report, indent=1) + "\n")


# ---------------------------------------------------------------------------------------------- models
def _models(arguments: argparse.Namespace) -> None:
    from ..weights.published import clear_downloads, remove
    from .listing import models

    if arguments.remove is not None:
        print(f"{arguments.remove} removed, {remove(arguments.remove) / 1e6:.1f} MB freed")
    elif arguments.clear_downloads:
        print(f"downloads removed, {clear_downloads() / 1e6:.1f} MB freed")
    else:
        print(models())


# ---------------------------------------------------------------------------------------------- options
def _option(what: str, metavar: str | None = None, **how: Any) -> dict[str, Any]:
    """An option that takes a value; `what` is its help."""
    return {"help": what, "metavar": metavar, **how}


def _switch(what: str) -> dict[str, Any]:
    return {"help": what, "action": "store_true"}


DEVICE = {"--device": _option("(default: %(default)s)", default="auto")}
STYLED_BUNDLE = {"--bundle": _option("(default: %(default)s)", "NAME", default=STYLED)}
COMMON = {
    "--bundle": _option("model bundle: a name from `vtoonify models`, or a folder (default: film; where a style is "
                        "asked for, looks); a published one is fetched if need be", "NAME"),
    "--device": _option("auto, cpu, cuda, cuda:1, mps; for a batch also several: cuda:0,cuda:1 (default: %(default)s)",
                        default="auto"),
    "--from": _option("where to get a published bundle from: a folder with its files, or an address (default: its "
                      "repository on Hugging Face)", "SOURCE", dest="source"),
    "--accept-licence": _switch("accept the licence of the published bundles (non-commercial) without being asked")}
STYLE = {
    "--style": _option("name of a style (`vtoonify styles` shows them) or its number, a picture with a face, a saved "
                       ".safetensors style, `new` for one that nobody drew, or a blend: comic-07:0.6,me.jpg:0.4; once "
                       "more for the next person, from left to right as they are first seen", "STYLE", action="append"),
    "--structure": _option("from 0, the face's features, to 1, the style's; in clips also keyframes, as seconds:value: "
                           "\"0:0, 2:1\"", "X"),
    "--color": _option("from 0, the face's colours, to 1, the style's; likewise", "X"),
    "--seed": _option("of the style `new` (default: 0)", "N", type=int)}
REGION = {
    "--frame": _option("crop: the toonified region around the face; full: the whole picture, in which people are drawn "
                       "and the rest stays (default: crop)", choices=("crop", "full")),
    "--padding": _option("pixels kept on each side of the eyes, where the eyes are a quarter of the model's input size "
                         "apart (default: 200/256 of the input size)", "PX", type=float),
    "--faces": _option("largest, all, or how many of the largest; several want --frame full (default: largest)",
                       "WHOM"),
    "--recipe": _option("replay a recipe, which decides style, degrees and region", "FILE"),
    "--save-recipe": _option("write down how this was made, to be replayed", "FILE")}
CLIPS = {"--no-smooth": _switch("parse every frame for itself: no smoothing along the optical flow")}
REMOVAL = {  # one or the other
    "--remove": _option("delete a published bundle, and downloads no other one needs", "NAME"),
    "--clear-downloads": _switch("delete what was downloaded; bundles that were made of it stay")}
COMMANDS: tuple[tuple[Any, ...], ...] = (  # function, what it does, options
    (_demo, "toonify the sample clip that comes along", COMMON, STYLE, {
        "out": _option("output folder (default: %(default)s)", "OUT", nargs="?", default="out")}),
    (_image, "toonify a picture", COMMON, STYLE, REGION, {
        "input": _option("image file", "IN"),
        "output": _option("image file to write; its ending says the format", "OUT")}),
    (_video, "toonify a clip, with its sound", COMMON, STYLE, REGION, CLIPS, {
        "input": _option("video file", "IN"),
        "output": _option("video file to write; its ending says the format", "OUT"),
        "--card": _option("picture file for a quality card: steadiness, landmarks, identity; numbers go to a .json "
                          "beside it", "FILE")}),
    (_portrait, "draw a photograph out of itself: large, sharp, some seconds", {
        "input": _option("photograph", "IN"),
        "output": _option("picture file to write; its ending says the format", "OUT"),
        "--look": _option("film, comic, paint, caricature, or an exemplar such as comic-07 (default: film)", "X",
                          default="film"),
        "--structure": _option("from 0, the person's proportions, to 1, the look's (default: what suits)", "X",
                               type=float),
        "--color": _option("from 0, the photograph's colours, to 1, the look's (default: 0.5)", "X", type=float,
                           default=0.5),
        "--size": _option("side of the square, 128 to 2048 px (default: 3 times the photograph's, to 1536)", "X",
                          type=int),
        "--bundle": _option("whose landmark model and parsing net to use (default: %(default)s)", "X",
                            default="film")}),
    (_batch, "toonify all clips and pictures in a folder; goes on where it was stopped", COMMON, STYLE, REGION, CLIPS, {
        "input": _option("folder, with all its folders", "DIR"),
        "output": _option("folder for the results, and for batch.json, which lists them", "OUT"),
        "--workers": _option("files at a time (default: one for each device, or for each four processor cores)", "N",
                             type=int),
        "--ray": _option("let a Ray cluster do it: its address, or `local` to start one on this machine", "ADDRESS")}),
    (_styles, "list the styles of a bundle of ours; draw a contact sheet", STYLED_BUNDLE, {
        "sheet": _option("picture file for the contact sheet", "SHEET", nargs="?")}),
    (_style, "keep the style of a picture as a small file for --style", STYLED_BUNDLE, DEVICE, {
        "input": _option("portrait in the wanted style", "PICTURE"),
        "output": _option("file to write; its name ends in .safetensors", "STYLE"),
        "--refine": _option("fit the style to the picture in N steps; 100 are usual (default: as it is read)", "N",
                            type=int, default=0)}),
    (_bench, "seconds a frame and peak memory on this machine, form by form", DEVICE, {
        "--bundle": _option("a bundle, or `published`, `published-d`: the authors' sizes, with random weights "
                            "(default: %(default)s)", "NAME", default="studio-t"),
        "--side": _option("side of the crop (default: head and shoulders)", "PX", type=int),
        "--rounds": _option("turns that are counted (default: 15)", "N", type=int, default=15),
        "--json": _option("write the report there, too", "FILE")}),
    (_models, "list the model bundles, here and published; remove published ones", REMOVAL),
)


if __name__ == "__main__":
    sys.exit(main())
