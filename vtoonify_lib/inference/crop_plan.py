"""From face trajectories to a plan: which faces to draw, a crop for every frame, and the opacity of the cartoon.

One steady crop holds the face for the whole clip; when it moves too far or comes much closer, the crop follows it.
The published system keeps the crop of the first frame for the whole clip. Frames without a face are never dropped: the
cartoon fades out to the original there, and in again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import VToonifyError
from ..faces.crop import GRID, Box, CropPlan, plan_around, resolve_padding
from ..faces.trajectory import FaceTrajectory
from ..styles.request import ALL, LARGEST

FIRST = 0.5   # seconds over which the first position of a face is averaged
SURELY = 0.5  # seconds for which a face must be found, when there are several, to count as one
ROAM = 1.0    # eyes may roam this many paddings before one steady crop becomes wasteful
ZOOM = 1.6    # eye distance may vary by this factor under one steady scale
GLIDE = 0.7   # seconds, standard deviation of the smoothing of a gliding crop
MISSED = 1.0  # longest gap between two frames with the face, in seconds, in which it is assumed to be there
REACH = 0.5   # seconds before and after the frames with a face in which it is assumed to be there
FADE = 0.4    # seconds in which the cartoon fades in and out


def select_faces(tracks: list[FaceTrajectory], faces: str | int) -> list[FaceTrajectory]:
    """The faces to draw: all that are found for long enough, or the largest of them.

    They are ordered from left to right by the position at which each is first found.
    """
    seen = [track for track in tracks if track.aligned is not None]
    seconds = [track.found.mean() * (track.times[-1] - track.times[0]) for track in seen]
    sure = [track for track, found in zip(seen, seconds, strict=True) if found >= min(SURELY, 0.5 * max(seconds))]
    largest = sorted(sure or seen[:1], key=lambda track: -np.nanmedian(track.distance))
    most = len(largest) if faces == ALL else 1 if faces == LARGEST else faces
    return sorted(largest[:most], key=_first_x)


def _first_x(track: FaceTrajectory) -> float:
    """Horizontal position of a face when it is first found."""
    times = track.monotonic_times
    return float(np.nanmean(np.asarray(track.x)[(times >= times[track.first]) & (times <= times[track.first] + FIRST)]))


def fade_alpha(track: FaceTrajectory) -> np.ndarray:
    """Opacity of the cartoon in each frame, [N] in [0,1]: 1 around frames with the face, 0 far from any.

    Gaps shorter than MISSED are closed; never across a cut.
    """
    times, found = track.monotonic_times, track.found
    share = np.zeros(track.frames)
    for scene in track.scenes:
        part = slice(scene.start, scene.stop)
        at, seen = times[part], times[part][found[part]]
        if not len(seen):
            continue
        after = np.searchsorted(seen, at)
        before, next_ = seen[np.maximum(after - 1, 0)], seen[np.minimum(after, len(seen) - 1)]
        away = np.minimum(np.abs(at - before), np.abs(next_ - at))
        away[(before <= at) & (at <= next_) & (next_ - before <= MISSED)] = 0
        share[part] = np.clip(1 - (away - REACH) / FADE, 0, 1)
    return share


@dataclass(frozen=True)
class ClipPlan:
    """One crop for every frame of a clip, all of the same size: `plan.at(index)`.

    steady: the same crop throughout; otherwise it glides after the face.
    """

    plans: tuple[CropPlan, ...]

    @property
    def steady(self) -> bool:
        return len(self.plans) == 1

    @property
    def width(self) -> int:
        return self.plans[0].width

    @property
    def height(self) -> int:
        return self.plans[0].height

    def at(self, index: int) -> CropPlan:
        """The crop of frame `index`; the last one is used for frames beyond the planned ones."""
        return self.plans[min(index, len(self.plans) - 1)]


def plan_clip(track: FaceTrajectory, in_size: int, padding: float | None = None) -> ClipPlan:
    """The crop for each frame: steady while the eyes stay within one padding, gliding otherwise.

    Raises VToonifyError when the clip shows no face, or one too small.
    """
    found = track.found
    if not found.any():
        raise VToonifyError(f"no face was found in any of the {track.frames} frames", code="no-face")
    padding = resolve_padding(in_size, padding)
    x, y, distance = (np.asarray(values) for values in (track.x, track.y, track.distance))
    usual = float(np.median(distance[found]))
    low, high = np.percentile(distance[found], (5, 95))
    bounds = Box(x[found].min(), y[found].min(), x[found].max(), y[found].max())
    plan = plan_around(track.frame_shape, bounds, usual, in_size, padding)
    roam = max(bounds.right - bounds.left, bounds.bottom - bounds.top) * plan.scale
    if roam <= ROAM * padding and high / low <= ZOOM:
        return ClipPlan((plan,))
    return _glide(track, in_size, padding)


def _glide(track: FaceTrajectory, in_size: int, padding: float) -> ClipPlan:
    """A crop of one size whose centre and scale follow the face smoothly, and jump at cuts."""
    height, width = track.frame_shape[:2]
    x, y, distance = _smoothed(track)
    scale = in_size / 4 / distance
    w = int(min(2 * padding, width * scale.min()) // GRID) * GRID
    h = int(min(2 * padding, height * scale.min()) // GRID) * GRID
    if min(w, h) < 2 * GRID:
        raise VToonifyError(f"the picture is {width}×{height} px, too small around the face for a crop")
    plans = []
    for cx, cy, s in zip(x, y, scale, strict=True):
        left = float(np.clip(cx * s - w / 2, 0, max(width * s - w, 0)))
        top = float(np.clip(cy * s - h / 2, 0, max(height * s - h, 0)))
        plans.append(CropPlan(float(s), left, top, left + w, top + h, width, height))
    return ClipPlan(tuple(plans))


def _smoothed(track: FaceTrajectory) -> np.ndarray:
    """x, y, eye distance of every frame [3,N]: gaps filled, Gaussian in time, never across a cut.

    Frame times may be uneven, so values are resampled to even ones for the filter.
    """
    values = np.stack([np.asarray(track.x), np.asarray(track.y), np.asarray(track.distance)])
    times, found = track.monotonic_times, track.found
    step = max(float(np.median(np.diff(times))), 1e-3) if len(times) > 1 else 1.0
    sigma = GLIDE / step
    reach = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    result = np.empty_like(values)
    for scene in track.scenes:
        start, end = scene.start, scene.stop
        inside = np.flatnonzero(found[start:end]) + start
        inside = inside if len(inside) else np.flatnonzero(found)
        even = np.arange(times[start], times[end - 1] + step, step)
        for row in range(3):
            filled = np.interp(even, times[inside], values[row, inside])
            padded = np.pad(filled, reach, mode="edge")
            smooth = np.convolve(padded, kernel / kernel.sum(), mode="valid")
            result[row, start:end] = np.interp(times[start:end], even, smooth)
    return result
