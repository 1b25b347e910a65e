"""A real face to test with: matplotlib's photograph of Grace Hopper (public domain), stills and clips made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import dlib
import matplotlib
import numpy as np
from media_files import _add_tone
from PIL import Image

from vtoonify_lib.faces.landmarks import box_from_landmarks
from vtoonify_lib.studio import fitting
from vtoonify_lib.studio.fitted_person import canvas_camera
from vtoonify_lib.studio.people import sample_z

# Marked by hand on the 512×600 photograph, iBUG order.
HOPPER = np.array([
    (182, 190), (183, 212), (186, 234), (190, 256), (196, 276), (206, 296), (222, 312), (242, 324), (266, 330),
    (290, 324), (308, 312), (324, 296), (334, 276), (341, 256), (346, 234), (350, 210), (352, 188),              # jaw
    (186, 172), (197, 164), (211, 161), (226, 162), (238, 167), (287, 163), (299, 157), (314, 155), (329, 158),
    (342, 166),                                                                                                  # brows
    (264, 190), (265, 204), (265, 218), (265, 233), (247, 246), (256, 249), (266, 252), (276, 249), (286, 244),  # nose
    (200, 189), (211, 184), (223, 184), (233, 191), (223, 195), (211, 195), (291, 187), (302, 181), (313, 182),
    (324, 187), (313, 192), (302, 192),                                                                          # eyes
    (229, 279), (241, 274), (255, 272), (265, 274), (275, 272), (291, 273), (307, 277), (292, 285), (278, 290),
    (265, 291), (253, 290), (240, 286),                                                                    # outer lips
    (235, 279), (255, 277), (265, 278), (276, 277), (302, 277), (276, 281), (265, 282), (255, 281)], np.float32)

GREY = 118
SIZE = 384  # px: sides of the canvases on which renders stand for photographs
Z = 0.4 * sample_z(np.random.default_rng(8), 1)[0]  # who is rendered there


def photograph() -> np.ndarray:
    """uint8 RGB [600,512,3]."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return np.asarray(Image.open(path).convert("RGB"))


def scene(width: int = 320, height: int = 240,
          people: Sequence[tuple[float, float, float]] = ((60, 0, 240),)) -> np.ndarray:
    """Grey, uint8 [height,width,3], with the photograph at each (left, top, its height); a face is 0.36 of that."""
    canvas = np.full((height, width, 3), GREY, np.uint8)
    for left, top, tall in people:
        scale = tall / 600
        move = np.array([[scale, 0, left], [0, scale, top]])
        placed = cv2.warpAffine(photograph(), move, (width, height), flags=cv2.INTER_AREA)
        inside = cv2.warpAffine(np.full((600, 512), 255, np.uint8), move, (width, height)) > 127
        canvas[inside] = placed[inside]
    return canvas


def write_clip(path: Path, frames: Sequence[np.ndarray], rate: int = 25, ticks: Sequence[int] | None = None,
               rotation: int = 0, sound: bool = True) -> Path:
    """H.264 with a tone. ticks: times in thousandths of a second (variable rate); rotation: clockwise degrees."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(-rotation)
        if ticks:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        tone = out.add_stream("aac", rate=44100, layout="mono") if sound else None
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = ticks[index] if ticks else index
            frame.time_base = Fraction(1, 1000) if ticks else Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone:
            _add_tone(out, tone, Fraction(len(frames), rate), Fraction(0))
    return path


def train_landmarks(path: Path) -> Path:
    """A shape predictor that knows this one face, turned and shifted a little: trained in a fraction of a second."""
    photo, rng = cv2.cvtColor(photograph(), cv2.COLOR_RGB2GRAY), np.random.default_rng(0)
    pictures, truths = [], []
    for _ in range(24):
        turn = cv2.getRotationMatrix2D((267, 240), rng.normal() * 6, 1.4 * np.exp(rng.normal() * 0.15))
        turn[:, 2] += rng.normal(size=2) * 10
        points = HOPPER @ turn[:, :2].T + turn[:, 2]
        box = np.array(box_from_landmarks(points)) + np.tile(rng.normal(size=2) * 24, 2)
        parts = [dlib.point(round(x), round(y)) for x, y in points.tolist()]
        pictures.append(cv2.warpAffine(photo, turn, (512, 600)))
        truths.append([dlib.full_object_detection(dlib.rectangle(*(round(v) for v in box)), parts)])
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 3, 8, 40
    options.oversampling_amount, options.feature_pool_size, options.num_test_splits = 8, 150, 10
    options.num_threads = 1
    dlib.train_shape_predictor(pictures, truths, options).save(str(path))
    return path


def photographed(camera, who, bald: bool = False) -> tuple:
    """A person's render on the canvas of a photograph: the fit, which is exact, and the parsing map.

    camera: `studio.render.Studio`;  bald: the fit knows nothing of the hair, as those of photographs
    """
    scene = camera.sculptor.scene(who)
    scene = replace(scene, camera=canvas_camera(scene.camera, camera.height))
    drawn = camera.draw(scene, who)
    fitted = who.with_(hair=None) if bald else who
    return fitting.exact(scene, fitted, drawn.image, drawn.landmarks), drawn.parsing
