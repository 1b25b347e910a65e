"""A person in motion: talking, turning, blinking, with sound, exact optical flow and every frame's ground truth.

A `Performance` is what anybody could act: curves of head pose, gaze and action units, and a voice in time with the
mouth. `film` draws a person acting it in any style, with one camera for the whole clip, so that the head moves in the
picture. The backdrop stands still.

`python -m vtoonify_lib.studio.clips talk.mp4 --person 7` makes a file, `… face.jpg --person 7` a portrait.
"""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..config import VToonifyError, exit_code
from . import speech
from .geometry import Scene, widen
from .people import Person, person, sample_z, unit_target
from .render import Portrait, Studio
from .styles import PHOTO, STYLES, Style, restyle

TALKING = ("mouth-", "eye-left-closure", "eye-right-closure")
"""Action units that a performance takes over from the person's own expression …"""

SMILE, SMILE_KEPT = "mouth-corner-puller", 0.35
"""… but for this one, of which so much may stay."""

STILL = {".jpg", ".jpeg", ".png"}

EYE_CONTACT = 0.9
"""Share of a turn of the head that the eyes undo, to go on looking at the camera."""

SAME_SURFACE = 0.06
"""Decimetres: a point counts as visible in the next frame if the depth there differs by less."""


@dataclass(frozen=True)
class Performance:
    """What is acted, whoever acts it; n frames.

    pose   [n,3] yaw, pitch, roll in radians, added to the person's own
    gaze   [n,2] yaw, pitch in radians away from the camera
    units  action unit → weights [n], added to the person's own
    sound  float32 [n / fps · speech.RATE] in [−1,1]
    """

    fps: int
    pose: np.ndarray
    gaze: np.ndarray
    units: dict[str, np.ndarray]
    sound: np.ndarray

    def __len__(self) -> int:
        return len(self.pose)


@dataclass(frozen=True)
class ClipFrame:
    """A frame, and how its points move to the next one.

    flow     float32 [H,W,2]: x, y in pixels; what is at p here is at p + flow(p) in the next frame
    visible  bool [H,W]: where that point can be seen there
    None for the last frame, and where no ground truth was asked for.
    """

    portrait: Portrait
    flow: np.ndarray | None
    visible: np.ndarray | None


def perform(who: Person, seconds: float = 4.0, fps: int = 25, seed: int = 0) -> Performance:
    """A few sentences, said with head, eyes and brows. The person decides how high the voice is, nothing else.

    The same seed gives the same motion. VToonifyError for less than a second or no frames.
    """
    if seconds < 1 or fps < 1:
        raise VToonifyError(f"a clip of {seconds:g} s at {fps} frames a second was asked for; 1 s and 1 are the least")
    rng = np.random.default_rng([seed, 7])
    frames = round(seconds * fps)
    times = np.arange(frames) / fps
    said = speech.babble(rng, seconds)
    units = speech.mouth_curves(said, times)
    stress = said.track(list(said.stress), times, 0.06)
    smile = 0.22 + 0.16 * np.clip(_holds(rng, times, (0.8, 1.6), 0.5, 0.2), 0, 1)
    units[SMILE] = smile * (1 - np.clip(units["mouth-open"] / 0.35, 0, 1))  # corners drawn back would bare the molars
    closed = _blinks(rng, times)
    brows = 0.15 + np.clip(_holds(rng, times, (0.4, 1.0), 0.7, 0.10), 0, 1) * (0.3 + 0.4 * stress)
    for side in ("left", "right"):
        units[f"eye-{side}-closure"] = closed
        units[f"eyebrows-{side}-up"] = brows
    pose = np.stack([_holds(rng, times, (0.6, 1.3), spread, 0.20) for spread in (0.17, 0.05, 0.045)], 1)
    pose[:, 1] += 0.035 * stress
    gaze = np.stack([_holds(rng, times, (0.5, 1.6), spread, 0.025) for spread in (0.07, 0.035)], 1)
    pitch, tract = 205 - 93 * who.male, 1.15 - 0.15 * who.male
    sound = speech.voice(said, round(frames * speech.RATE / fps), pitch, tract, rng)
    return Performance(fps, pose, gaze, units, sound)


def _holds(rng: np.random.Generator, times: np.ndarray, every: tuple[float, float], spread: float,
           blur: float) -> np.ndarray:
    """A curve [n] that rests at random values (Gaussian, `spread`, cut at 1.8) and moves on every so many seconds."""
    edges = np.cumsum(rng.uniform(*every, int(times[-1] / every[0]) + 3))
    values = spread * np.clip(rng.standard_normal(len(edges)), -1.8, 1.8)
    fine = np.arange(times[0] - 3 * blur, times[-1] + 3 * blur + 1e-9, min(blur / 4, 0.01))
    steps = values[np.clip(np.searchsorted(edges, fine), 0, len(values) - 1)]
    weight = np.exp(-0.5 * ((times[:, None] - fine[None]) / blur) ** 2)
    return weight @ steps / weight.sum(1)


def _blinks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Lid closure [n]: a fast way down, a slower one up; long enough shut for a frame at 25 fps to see it."""
    closed, moment = np.zeros(len(times)), rng.uniform(0.5, 1.2)
    while moment < times[-1]:
        since = times - moment
        closed = np.maximum(closed, 0.92 * np.clip(np.minimum(since / 0.07 + 1.6, 1.7 - since / 0.13), 0, 1))
        moment += rng.uniform(1.3, 2.8)
    return closed


def calm(who: Person) -> Person:
    """The person before the clip begins: eyes open, mouth closed."""
    kept, smile = {}, unit_target(SMILE, who.ethnicity)
    for target, weight in who.expression.items():
        if target == smile:
            kept[target] = min(weight, SMILE_KEPT)
        elif not target.rsplit("/", 1)[1].startswith(TALKING):
            kept[target] = weight
    return who.with_(expression=kept)


def act(who: Person, performance: Performance, i: int) -> Person:
    """The person in frame i of a performance."""
    quiet = calm(who)
    expression = dict(quiet.expression)
    for unit, weights in performance.units.items():
        target = unit_target(unit, who.ethnicity)
        expression[target] = float(min(1.0, expression.get(target, 0.0) + weights[i]))
    pose = who.pose + performance.pose[i]
    return quiet.with_(expression=expression, pose=pose, gaze=performance.gaze[i] - EYE_CONTACT * pose[:2])


def film(studio: Studio, who: Person, performance: Performance, style: Style = PHOTO, truth: bool = True,
         square: tuple[float, float, float] | None = None) -> Iterator[ClipFrame]:
    """Frames of a person acting a performance; the camera stands where it frames the calm person.

    truth   also parsing maps, depth and flow (about half as many frames a second)
    square  left, top and side, in pixels, of the FFHQ square within the studio's picture; default: as large as fits
    """
    start = studio.sculptor.scene(restyle(calm(who), style), style.warp)
    camera = widen(start.camera, studio.height, studio.width, square)
    scene = portrait = None
    for i in range(len(performance)):
        dressed = restyle(act(who, performance, i), style)
        before, shown = scene, portrait
        scene = studio.sculptor.scene(dressed, style.warp, camera)
        portrait = studio.draw(scene, dressed, style, truth)
        if before is not None:
            yield ClipFrame(shown, *(_motion(studio, before, scene, dressed, portrait) if truth else (None, None)))
    yield ClipFrame(portrait, None, None)


def _motion(studio: Studio, before: Scene, scene: Scene, dressed: Person,
            portrait: Portrait) -> tuple[np.ndarray, np.ndarray]:
    """Flow from one scene to the next, and where it ends in something that `portrait`, the next picture, shows."""
    flow, arriving = studio.flow(before, scene, dressed)
    height, width = arriving.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y = np.floor(columns + flow[..., 0]).astype(int), np.floor(rows + flow[..., 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    there = portrait.depth[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    with np.errstate(invalid="ignore"):  # backdrop to backdrop: inf - inf
        same = (there == arriving) | (np.abs(there - arriving) < SAME_SURFACE)
    return flow, inside & same


def write_clip(path: str | os.PathLike, frames: Iterable[np.ndarray], performance: Performance) -> None:
    """Write pictures (uint8 [H,W,3]) and the performance's sound to a video file. Errors as of `video.VideoWriter`."""
    from ..media.video import VideoWriter

    with tempfile.TemporaryDirectory() as folder:
        track = Path(folder) / "voice.wav"
        with wave.open(str(track), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(speech.RATE)
            file.writeframes((performance.sound * 32767).round().astype("<i2").tobytes())
        with VideoWriter(path, source=track) as writer:
            for i, picture in enumerate(frames):
                writer.write(picture, Fraction(i, performance.fps))


def main(arguments: list[str] | None = None) -> int:
    """The command; → exit code: 0, or 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.studio.clips", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="video to write; or a picture, for a portrait of the person")
    parser.add_argument("--person", type=int, default=0, help="seed of z: who it is (default: 0)")
    parser.add_argument("--truncation", type=float, default=0.6, help="0 = average … 1 = as varied as people come")
    parser.add_argument("--performance", type=int, default=0, help="seed of the motion and the words (default: 0)")
    parser.add_argument("--style", choices=STYLES, default="photo")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--square", type=float, nargs=3, metavar=("LEFT", "TOP", "SIDE"),
                        help="where in the picture the FFHQ square of the face is (default: the largest in the middle)")
    args = parser.parse_args(arguments)

    def work() -> None:
        studio = Studio(size=tuple(args.size))
        who = person(args.truncation * sample_z(np.random.default_rng(args.person), 1)[0])
        if args.out.suffix.lower() in STILL:
            shot = studio.portrait(who, STYLES[args.style], truth=False, square=args.square)
            Image.fromarray(shot.image).save(args.out, quality=92)
            return
        played = perform(who, args.seconds, args.fps, args.performance)
        frames = film(studio, who, played, STYLES[args.style], truth=False, square=args.square)
        write_clip(args.out, (frame.portrait.image for frame in frames), played)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
