"""A data set of photographs and their cartoons: `studio.photo_cartoon` draws each photograph of a folder.

`python -m vtoonify_lib.training.photo_pairs runs/film --photos FOLDER` fits a head to every photograph, leaves out
those that no head fits, and draws the others in as many processes as there are cores; stop it and start it again and
it goes on where it was. The data set is laid out as `studio.shards` lays out renders: the same training reads both.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..config import VToonifyError, exit_code
from ..studio import shards
from ..studio.exemplars import EXEMPLARS, PICTURE, sitters
from ..studio.filters import use_one_thread
from ..studio.fitted_person import MARGIN, FittedPerson, canvas_camera
from ..studio.fitting import exact
from ..studio.packing import HOLD_OUT
from ..studio.people import Person, person, sample_z
from ..studio.photo_cartoon import PhotoStudio
from ..studio.photo_looks import LOOKS, exemplar, flattering, photo_look
from ..studio.portraits import PhotoReader, as_bytes, read_labels
from ..studio.render import Studio
from ..weights.bundle import DEFAULT_BUNDLE

RENDER = "render:"
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class Settings:
    """What a data set of photographs is made of.

    photos, renders  folders, and how many of the studio's own people after them, who need no fit: theirs is exact
    looks  names of looks; of each, every photograph is drawn `drawings` times, as film for VToonify-T is: at the degree
           that suits the person, or, with `spread`, by exemplars and at degrees drawn by lot
    size   side of the canvas, 1.5 times the FFHQ square
    """

    photos: tuple[str, ...] = ()
    renders: int = 0
    looks: tuple[str, ...] = ("film",)
    size: int = 768
    drawings: int = 1
    spread: bool = False
    seed: int = 0
    bundle: str = DEFAULT_BUNDLE
    labels: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("size", 128), ("drawings", 1), ("renders", 0)):
            if getattr(self, name) < least:
                raise VToonifyError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        for look in self.looks:
            photo_look(look)


def render(who: Person, studio: Studio) -> tuple[FittedPerson, np.ndarray]:
    """A person of the studio, whose size is that of the canvas, as a photograph that is fitted exactly."""
    scene = studio.sculptor.scene(who)
    scene = replace(scene, camera=canvas_camera(scene.camera, studio.height))
    drawn = studio.draw(scene, who)
    return exact(scene, who, drawn.image, drawn.landmarks), np.eye(19, dtype=np.float32)[drawn.parsing]


def photographs(folders: Iterable[str | Path]) -> list[Path]:
    """Pictures in folders and their subfolders, in order. VToonifyError where there are none."""
    found = sorted({p for folder in folders for p in Path(folder).rglob("*") if p.suffix.lower() in PICTURES})
    if not found:
        raise VToonifyError(f"there is no picture in {', '.join(map(str, folders))}; give folders of photographs")
    return found


def draw_pairs(folder: str | Path, settings: Settings, hold_out: Iterable[str | Path] = (),
               processes: int | None = None, progress: bool = True) -> shards.Pairs:
    """Draw every photograph, or finish a data set that was begun in `folder` → the data set.

    hold_out: photographs that are not to be trained on; they come first, and HOLD_OUT has the numbers of their entries.
    VToonifyError if it was begun with other settings or another hold-out, or if that names other photographs.
    """
    folder = Path(folder)
    meta = _begin(folder, settings, {Path(p).resolve() for p in hold_out})
    if settings.spread:
        _draw_exemplars(folder, settings)
    todo = [start // settings.drawings for start in shards.todo(folder, meta)]
    jobs = [(str(folder), i) for i in todo]
    with tqdm(total=len(meta["people"]), initial=len(meta["people"]) - len(todo), desc="photographs", smoothing=0,
              disable=not progress) as bar:
        for _ in shards.in_processes(_draw_one, jobs, processes):
            bar.update()
    return shards.Pairs.open(folder)


def _begin(folder: Path, settings: Settings, hold_out: set[Path]) -> dict:
    path = folder / "meta.json"
    given, held = json.loads(json.dumps(vars(settings))), sorted(map(str, hold_out))
    if path.is_file():
        meta = json.loads(path.read_text())
        if meta.get("settings") != given or meta.get("hold_out", held) != held:
            raise VToonifyError(f"the data set in {folder} was begun with {meta.get('settings')} and "
                                f"{len(meta.get('hold_out', ()))} photographs held out; give the same to go on, or "
                                "choose another folder")
        return meta
    people = photographs(settings.photos) if settings.photos else []
    people.sort(key=lambda p: p.resolve() not in hold_out)
    kept = sum(p.resolve() in hold_out for p in people)
    unknown = hold_out - {p.resolve() for p in people}
    if unknown:
        raise VToonifyError(f"{sorted(unknown)[0]} is to be held out and is not among the photographs; name the "
                            "files as they are in their folders")
    people = [*map(str, people), *(f"{RENDER}{i}" for i in range(settings.renders))]
    if not people:
        raise VToonifyError("there is nothing to draw; give folders of photographs or a number of renders")
    meta = {"settings": given, "hold_out": held, "people": people, "margin": MARGIN, "photographs": True,
            "chunk": settings.drawings, "count": len(people) * settings.drawings, "size": settings.size,
            "styles": ["photo"],
            "looks": list(settings.looks), "seed": settings.seed}
    (folder / "done").mkdir(parents=True, exist_ok=True)
    for name, (shape, dtype) in shards.fields(meta["size"], ("photo",), settings.looks, True).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (meta["count"], *shape)).flush()
    (folder / HOLD_OUT).write_text("".join(f"{i}\n" for i in range(kept * settings.drawings)))
    path.write_text(json.dumps(meta, indent=1))
    return meta


def _draw_exemplars(folder: Path, settings: Settings) -> None:
    """What each look's exemplars look like, on people who do not exist: folder/exemplars/LOOK.npy [24,256,256,3]."""
    for look in settings.looks:
        path = shards.exemplars_path(folder, look)
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.stack([exemplar_picture(look, number, settings.bundle) for number in range(EXEMPLARS)]))


def exemplar_picture(look: str, number: int, bundle: str = DEFAULT_BUNDLE) -> np.ndarray:
    """Somebody pleasant drawn by an exemplar at full degrees: the FFHQ square, uint8 [256,256,3]."""
    _, studio = _tools(bundle, None)
    fit, parsing = render(sitters()[number], shards.studio_of(round(MARGIN * PICTURE)))
    drawing = studio.draw(studio.prepare(fit, parsing), exemplar(look, number), 1.0, 1.0)
    border = (fit.size - PICTURE) // 2
    return as_bytes(drawing.picture[border:border + PICTURE, border:border + PICTURE])


def write_pictures(out: str | Path, looks: Iterable[str], bundle: str = DEFAULT_BUNDLE) -> list[Path]:
    """OUT/LOOK/NN.jpg of every exemplar of looks, 256 px → their paths."""
    paths = []
    for look in looks:
        (Path(out) / look).mkdir(parents=True, exist_ok=True)
        for number in range(EXEMPLARS):
            paths.append(Path(out) / look / f"{number:02d}.jpg")
            Image.fromarray(exemplar_picture(look, number, bundle)).save(paths[-1], quality=88)
    return paths


def draw_style(look: str, seed: int, index: int) -> tuple[int, float, float]:
    """Which exemplar of a look entry `index` is drawn by, and at which degrees of structure and colour.

    Structure is 0 for a tenth and 1 for a fifth, else even, for users may ask for any; colour as in `shards`.
    """
    rng = np.random.default_rng([seed, index, list(LOOKS).index(look), 5])
    number, kind, structure, color = int(rng.integers(EXEMPLARS)), *rng.random(3)
    structure = 0.0 if kind < 0.1 else 1.0 if kind > 0.8 else structure
    return number, float(structure), float(np.clip((color - 0.35) / 0.3, 0, 1))


@lru_cache(maxsize=1)
def _tools(bundle: str, labels: str | None) -> tuple[PhotoReader, PhotoStudio]:
    torch.set_num_threads(1)
    use_one_thread()
    reader = PhotoReader(bundle, labels)
    return reader, PhotoStudio(reader.fitter.kit)


def _draw_one(folder: str, index: int) -> int:
    """Draw one photograph's entries, and mark it as done, with the reason where it was refused."""
    meta = json.loads((Path(folder) / "meta.json").read_text())
    settings = Settings(**meta["settings"])
    reader, studio = _tools(settings.bundle, settings.labels)
    name = meta["people"][index]
    if name.startswith(RENDER):
        camera = shards.studio_of(settings.size)
        seed = [settings.seed, int(name.removeprefix(RENDER)), 77]
        read = render(person(sample_z(np.random.default_rng(seed), 1)[0]), camera)
    else:
        try:
            read = reader(name, settings.size)
        except VToonifyError as error:  # one damaged file must not stop all the others
            read = str(error)
    done = shards.done_file(Path(folder), index * settings.drawings)
    if isinstance(read, str):
        done.write_text(read)
        return 1
    fit, parsing = read
    ready, arrays = studio.prepare(fit, parsing), shards.open_arrays(Path(folder), meta, "r+")
    for i in range(index * settings.drawings, (index + 1) * settings.drawings):
        arrays["photo"][i] = as_bytes(fit.photo)
        arrays["photo_landmarks"][i], arrays["photo_parsing"][i] = fit.landmarks + 0.5, ready.labels
        arrays["wide"][i] = True
        for look in settings.looks:
            chosen, number, structure, color = LOOKS[look], -1, flattering(fit), 0.5
            if settings.spread:
                number, structure, color = draw_style(look, settings.seed, i)
                chosen = exemplar(look, number)
            drawing = studio.draw(ready, chosen, structure, color)
            arrays[look][i], arrays[f"{look}_parsing"][i] = as_bytes(drawing.picture), drawing.labels
            arrays[f"{look}_landmarks"][i] = drawing.landmarks + 0.5
            coarse = settings.size // shards.MOVE_STEP
            arrays[f"{look}_move"][i] = cv2.resize(drawing.move, (coarse, coarse), interpolation=cv2.INTER_AREA)
            arrays[f"{look}_style"][i] = number
            arrays[f"{look}_structure"][i], arrays[f"{look}_color"][i] = structure, color
    for array in arrays.values():
        array.flush()
    done.touch()
    return 1


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise VToonifyError(f"{path} cannot be read ({error.strerror}); give a text file with a photograph a line"
                            ) from error


def main(arguments: list[str] | None = None) -> int:
    """The command; → exit code: 0, 2 for a mistake of the user, 130 when stopped."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.training.photo_pairs",
                                     description=__doc__.splitlines()[0],
                                     epilog="Stop it with Ctrl-C; the same command goes on where it was.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", nargs="+", default=[], help="folders of photographs")
    parser.add_argument("--renders", type=int, default=0, help="people drawn by the studio, besides or instead")
    parser.add_argument("--looks", nargs="+", default=["film"], help=f"({' '.join(LOOKS)})")
    parser.add_argument("--size", type=int, default=768, help="side of the canvas in pixels (default: 768)")
    parser.add_argument("--drawings", type=int, default=1, help="drawings of a photograph in each look (default: 1)")
    parser.add_argument("--spread", action="store_true", help="exemplars and degrees drawn by lot, as VToonify-D needs")
    parser.add_argument("--hold-out", type=Path, help="text file of photographs, a line each, that stay apart")
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="whose landmark model and parsing net to use")
    parser.add_argument("--labels", help=".npz of landmarks and irises found by another program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", action="store_true", help="draw the pictures of the looks' exemplars into the "
                        "folder, LOOK/NN.jpg, and nothing else")
    parser.add_argument("--processes", type=int, help="(default: one per core)")

    def work() -> str:
        args = vars(parser.parse_args(arguments))
        folder, held, processes = args.pop("folder"), args.pop("hold_out"), args.pop("processes")
        if args.pop("pictures"):
            return f"{len(write_pictures(folder, args['looks'], args['bundle']))} pictures in {folder}"
        args["photos"], args["looks"] = tuple(args["photos"]), tuple(args["looks"])
        hold_out = _lines(held) if held else []
        if args["labels"]:
            read_labels(args["labels"])
        pairs = draw_pairs(folder, Settings(**args), hold_out, processes)
        return f"{len(pairs.ready)} drawings in {pairs.folder}"

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
