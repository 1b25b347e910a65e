"""Several people in one picture: who occludes whom, and whose drawing each pixel shows.

Every crop also holds parts of the people next to it, and a network draws all that it sees. So each pixel is assigned
to the person in whose head it lies, or to the nearest one; where heads overlap, to the one in front.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..faces.crop import CropPlan
from ..faces.trajectory import FaceTrajectory

HEAD = (1.25, 1.8)  # half the width and half the height of a head, in eye distances
EDGE = 0.2          # heads: half the width of the transition between two drawings
ASTRAY = 0.5        # heads: two tracks closer than this follow one face
BEGIN = 10          # first frames of a scene by which its face is identified
HIDE = 0.2          # seconds in which the drawing of an occluded person fades out and in


def ownership_mask(positions: np.ndarray, who: int, plan: CropPlan, front: np.ndarray | None = None) -> np.ndarray:
    """A person's share of each pixel of their crop, float32 [h,w] in [0,1] at working size.

    positions  [P,3] of all people, see `faces.crop.face_position`; nan for those who are not in the picture
    front      [P,P] bool: the first is in front of the second; default: larger heads are in front
    """
    front = positions[:, None, 2] > positions[None, :, 2] if front is None else front
    left, top, right, bottom = plan.box
    x = left + (np.arange(plan.width, dtype=np.float32) + 0.5) * ((right - left) / plan.width)
    y = top + (np.arange(plan.height, dtype=np.float32)[:, None] + 0.5) * ((bottom - top) / plan.height)
    heads = [_head_distance(x - px, y - py, size) for px, py, size in positions]
    mine = np.ones((plan.height, plan.width), np.float32)
    for other, theirs in enumerate(heads):
        if other != who and np.isfinite(positions[other]).all():
            ahead = theirs - heads[who]  # positive: nearer to `who`
            if front[who, other]:
                ahead = np.maximum(ahead, 1 - heads[who])
            elif front[other, who]:
                ahead = np.minimum(ahead, theirs - 1)
            mine *= np.clip(0.5 + ahead / (2 * EDGE), 0, 1)
    return mine


def split_identities(track: FaceTrajectory, people: Sequence[FaceTrajectory]) -> list[FaceTrajectory]:
    """`track`, which followed the largest face of each scene by position, corrected; and all other people.

    In each scene it is identified with the one of `people` at whose position it begins. Where that face is lost and
    found again, `track` may have switched to a person passing in front; if it is not found again, `track` is kept.
    """
    x, y, _ = _interpolated_positions(track)
    mine, theirs = _positions(track), np.stack([_positions(one) for one in people])  # [3,N], [P,3,N]
    apart = _head_distance(theirs[:, 0] - x, theirs[:, 1] - y, theirs[:, 2])
    gone, aligned = np.zeros(apart.shape, bool), None
    for scene in track.scenes:
        begin = scene.start + np.flatnonzero(track.found[scene.start : scene.stop])[:BEGIN]
        near = (apart[:, begin] < 1).sum(1)
        if not near.any():
            continue
        who = int(near.argmax())
        aligned = people[who].aligned if aligned is None else aligned
        gone[who, scene.start : scene.stop] = True
        known = scene.start + np.flatnonzero(np.isfinite(theirs[who, 2, scene.start : scene.stop]))
        until = np.arange(scene.start, known[-1] + 1)
        mine[:, until[(np.delete(apart[:, until], who, 0) < ASTRAY).any(0)]] = np.nan
        mine[:, known] = theirs[who][:, known]
    apart = _head_distance(theirs[:, 0] - mine[0], theirs[:, 1] - mine[1], theirs[:, 2])
    gone |= np.isfinite(mine[2]) & (apart < ASTRAY)
    theirs[np.broadcast_to(gone[:, None], theirs.shape)] = np.nan
    track = replace(track, aligned=track.aligned if aligned is None else aligned)
    return [_with_positions(track, mine), *(_with_positions(one, rows) for one, rows in zip(people, theirs, strict=True)
                                            if np.isfinite(rows).any())]


def _positions(track: FaceTrajectory) -> np.ndarray:
    """x, y, eye distance [3,N]; nan where the face was not found."""
    return np.stack([np.asarray(track.x), np.asarray(track.y), np.asarray(track.distance)])


def _with_positions(track: FaceTrajectory, values: np.ndarray) -> FaceTrajectory:
    return replace(track, x=array("d", values[0]), y=array("d", values[1]), distance=array("d", values[2]))


class OcclusionModel:
    """Occlusion between the people of one clip. `positions` [P,3,N]: x, y, eye distance; nan in scenes without them."""

    def __init__(self, tracks: Sequence[FaceTrajectory]) -> None:
        self.times = tracks[0].monotonic_times
        self.found = np.stack([track.found for track in tracks])
        self.positions = np.stack([_interpolated_positions(track) for track in tracks])
        self.scenes = [track.scenes for track in tracks]
        self.front = self._front_order()

    def _front_order(self) -> np.ndarray:
        """[P,P] bool: the first is in front of the second, because it is found more often where their heads overlap."""
        people = range(len(self.positions))

        def overlap(a: int, b: int) -> np.ndarray:
            return (self._distance(a, b) < 2) | (self._distance(b, a) < 2)

        seen = np.array([[overlap(a, b)[self.found[a]].sum() for b in people] for a in people])
        size = np.nanmedian(self.positions[:, 2], axis=1)
        return (seen > seen.T) | ((seen == seen.T) & (size[:, None] > size[None]))

    def _distance(self, a: int, b: int) -> np.ndarray:
        """Distance of two people in head sizes of the first: [N], nan where one of them is absent."""
        (x, y, size), (x2, y2, _) = self.positions[a], self.positions[b]
        return _head_distance(x2 - x, y2 - y, size)

    def occluded(self, who: int) -> np.ndarray:
        """How far a person is occluded: [N] in [0,1]; 1 where they are not found and others are in their place.

        It fades in and out, never across a cut.
        """
        behind = np.zeros(len(self.times), bool)
        for other in range(len(self.positions)):
            if other != who:
                behind |= ~self.found[who] & self.found[other] & (self._distance(other, who) < 1.5)
        occluded = np.zeros(len(self.times))
        for scene in self.scenes[who]:
            part = slice(scene.start, scene.stop)
            at, then = self.times[part], self.times[part][behind[part]]
            if len(then):
                after = np.searchsorted(then, at)
                away = np.minimum(np.abs(at - then[np.maximum(after - 1, 0)]),
                                  np.abs(then[np.minimum(after, len(then) - 1)] - at))
                occluded[part] = np.clip(1 - away / HIDE, 0, 1)
        return occluded

    def ownership_mask(self, who: int, index: int, plan: CropPlan, drawn: Sequence[float]) -> np.ndarray:
        """A person's share of each pixel of their crop in frame `index`, see the function of that name.

        drawn: opacity of the drawings of the first len(drawn) people; a person who is neither drawn nor found owns
        no pixel
        """
        index = min(index, len(self.times) - 1)
        there = self.found[:, index].copy()
        there[: len(drawn)] |= np.asarray(drawn) > 0
        return ownership_mask(np.where(there[:, None], self.positions[:, :, index], np.nan), who, plan, self.front)


def _head_distance(dx: np.ndarray, dy: np.ndarray, size: np.ndarray | float) -> np.ndarray:
    """Distance from the point between a person's eyes, in head sizes: 1 is the outline of the head."""
    return np.hypot(dx / (HEAD[0] * size), dy / (HEAD[1] * size))


def _interpolated_positions(track: FaceTrajectory) -> np.ndarray:
    """x, y, eye distance [3,N], linearly interpolated between frames with the face."""
    values, times, found = _positions(track), track.monotonic_times, track.found
    filled = np.full_like(values, np.nan)
    for scene in track.scenes:
        part = slice(scene.start, scene.stop)
        inside = np.flatnonzero(found[part]) + scene.start
        if len(inside):
            for row in range(3):
                filled[row, part] = np.interp(times[part], times[inside], values[row, inside])
    return filled
