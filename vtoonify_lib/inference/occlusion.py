"""Several people in one picture: who is hidden behind whom, and whose drawing each pixel is to show.

Every crop also holds a part of whoever stands near, and a network draws all that it sees. So a pixel belongs to the
person in whose head it lies, or to the nearest one; where heads overlap, to the one in front.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..faces.crop import CropPlan, eye_centres, eye_distance
from ..faces.trajectory import ClipTrack

HEAD = (1.25, 1.8)  # half the width and half the height of a head, in eye distances
EDGE = 0.2          # heads: half the way over which one drawing passes into another
ASTRAY = 0.5        # heads between two places that are one
BEGIN = 10          # frames with the face that tell whose it is
HIDE = 0.2          # seconds in which the drawing of somebody who is being hidden goes, and comes back


def place_of(landmarks: np.ndarray) -> tuple[float, float, float]:
    """x, y of the point between the eyes, and the eye distance, of landmarks [68,2]."""
    left, right = eye_centres(landmarks)
    x, y = (left + right) / 2
    return float(x), float(y), float(eye_distance(landmarks))


def share(places: np.ndarray, who: int, plan: CropPlan, front: np.ndarray | None = None) -> np.ndarray:
    """How much of each pixel of a person's crop is theirs, float32 [h,w] in [0,1] at working size.

    places  [P,3] of everybody in the picture, as `place_of` says; nan for who is not in it
    front   [P,P] bool: the first one is in front of the second; default those with the larger heads
    """
    front = places[:, None, 2] > places[None, :, 2] if front is None else front
    left, top, right, bottom = plan.box
    x = left + (np.arange(plan.width, dtype=np.float32) + 0.5) * ((right - left) / plan.width)
    y = top + (np.arange(plan.height, dtype=np.float32)[:, None] + 0.5) * ((bottom - top) / plan.height)
    heads = [_heads(x - px, y - py, size) for px, py, size in places]
    mine = np.ones((plan.height, plan.width), np.float32)
    for other, theirs in enumerate(heads):
        if other != who and np.isfinite(places[other]).all():
            ahead = theirs - heads[who]  # positive: nearer to me
            if front[who, other]:
                ahead = np.maximum(ahead, 1 - heads[who])
            elif front[other, who]:
                ahead = np.minimum(ahead, theirs - 1)
            mine *= np.clip(0.5 + ahead / (2 * EDGE), 0, 1)
    return mine


def told_apart(track: ClipTrack, people: Sequence[ClipTrack]) -> list[ClipTrack]:
    """`track`, which followed the largest face of each scene by its place, corrected; and all who are beside it.

    It is in each scene that one of `people` in whose place it begins. Where they are lost and come back, it may have
    walked off with somebody who passes in front; once they do not come back, it is believed.
    """
    x, y, _ = _places(track)
    mine, theirs = _values(track), np.stack([_values(one) for one in people])  # [3,N], [P,3,N]
    apart = _heads(theirs[:, 0] - x, theirs[:, 1] - y, theirs[:, 2])
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
    gone |= np.isfinite(mine[2]) & (_heads(theirs[:, 0] - mine[0], theirs[:, 1] - mine[1], theirs[:, 2]) < ASTRAY)
    theirs[np.broadcast_to(gone[:, None], theirs.shape)] = np.nan
    track = replace(track, aligned=track.aligned if aligned is None else aligned)
    return [_replaced(track, mine), *(_replaced(one, rows) for one, rows in zip(people, theirs, strict=True)
                                      if np.isfinite(rows).any())]


def _values(track: ClipTrack) -> np.ndarray:
    """x, y, eye distance [3,N]; nan where the face was not found."""
    return np.stack([np.asarray(track.x), np.asarray(track.y), np.asarray(track.distance)])


def _replaced(track: ClipTrack, values: np.ndarray) -> ClipTrack:
    return replace(track, x=array("d", values[0]), y=array("d", values[1]), distance=array("d", values[2]))


class Crowd:
    """People of one clip, by their tracks. `places` [P,3,N]: x, y, eye distance; nan in scenes without them."""

    def __init__(self, tracks: Sequence[ClipTrack]) -> None:
        self.times = tracks[0].clock
        self.found = np.stack([track.found for track in tracks])
        self.places = np.stack([_places(track) for track in tracks])
        self.scenes = [track.scenes for track in tracks]
        self.front = self._who_is_in_front()

    def _who_is_in_front(self) -> np.ndarray:
        """[P,P] bool: the first one is in front of the second, being seen more often where both are in one place."""
        people = range(len(self.places))
        seen = np.array([[((self._apart(a, b) < 2) | (self._apart(b, a) < 2))[self.found[a]].sum() for b in people]
                         for a in people])
        size = np.nanmedian(self.places[:, 2], axis=1)
        return (seen > seen.T) | ((seen == seen.T) & (size[:, None] > size[None]))

    def _apart(self, a: int, b: int) -> np.ndarray:
        """How far two people are from each other, in the heads of the first: [N], nan where one is not there."""
        (x, y, size), (x2, y2, _) = self.places[a], self.places[b]
        return _heads(x2 - x, y2 - y, size)

    def hidden(self, who: int) -> np.ndarray:
        """How much of somebody is hidden behind others: [N] in [0,1]. 1 where they are not found, but others there.

        It fades in and out, never across a cut.
        """
        behind = np.zeros(len(self.times), bool)
        for other in range(len(self.places)):
            if other != who:
                behind |= ~self.found[who] & self.found[other] & (self._apart(other, who) < 1.5)
        hidden = np.zeros(len(self.times))
        for scene in self.scenes[who]:
            part = slice(scene.start, scene.stop)
            at, then = self.times[part], self.times[part][behind[part]]
            if len(then):
                after = np.searchsorted(then, at)
                away = np.minimum(np.abs(at - then[np.maximum(after - 1, 0)]),
                                  np.abs(then[np.minimum(after, len(then) - 1)] - at))
                hidden[part] = np.clip(1 - away / HIDE, 0, 1)
        return hidden

    def share(self, who: int, index: int, plan: CropPlan, drawn: Sequence[float]) -> np.ndarray:
        """How much of each pixel of somebody's crop is theirs in frame `index`, see `share`.

        drawn: how much of their drawings the frame shows, of the first so many; who is neither drawn nor found takes
        nothing away
        """
        index = min(index, len(self.times) - 1)
        there = self.found[:, index].copy()
        there[: len(drawn)] |= np.asarray(drawn) > 0
        return share(np.where(there[:, None], self.places[:, :, index], np.nan), who, plan, self.front)


def _heads(dx: np.ndarray, dy: np.ndarray, size: np.ndarray | float) -> np.ndarray:
    """A distance from somebody's eyes, in heads: 1 is where theirs ends."""
    return np.hypot(dx / (HEAD[0] * size), dy / (HEAD[1] * size))


def _places(track: ClipTrack) -> np.ndarray:
    """x, y, eye distance [3,N]; between frames with the face as if it had moved evenly."""
    values, times, found = _values(track), track.clock, track.found
    filled = np.full_like(values, np.nan)
    for scene in track.scenes:
        part = slice(scene.start, scene.stop)
        inside = np.flatnonzero(found[part]) + scene.start
        if len(inside):
            for row in range(3):
                filled[row, part] = np.interp(times[part], times[inside], values[row, inside])
    return filled
