"""Tracking several faces: detections are assigned to people by position and by colour histograms of face and hair.

No face recognition is used: two people with the same colours are distinguished by position alone.
"""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np

from .detector import Face, FaceFinder
from .tracker import SAME_FACE, THOROUGH_EVERY, FaceTrack

LOOKED_AT = 48                       # pixels: the larger side of the patch whose colours are counted
BINS = (8, 6, 6)                     # of lightness, and of the two axes of colour, which end at ± 40
REGIONS = ((0.45, -0.5, 0.5), (0.55, -0.85, -0.35))
"""Face and hair around the centre of the box, in box sides: half the width, top, bottom."""
UNLIKE = 0.6                         # largest dissimilarity at which a lost person is recognised again
PLACE = 0.3                          # share of the dissimilarity due to the position; the rest is due to the colours
LEARN = 0.2                          # weight of the present frame in the running mean of a person's colours
ON_TOP = 0.5                         # two tracks closer than this, in box sides, follow one face


def colours(rgb: np.ndarray, face: Face) -> np.ndarray:
    """Colours of face and hair in a uint8 RGB picture [H,W,3]: unit length [2·288], to be compared by dot products."""
    counts = []
    for half, top, bottom in REGIONS:
        low = face.centre + face.side * np.array([-half, top])
        high = face.centre + face.side * np.array([half, bottom])
        (x0, y0), (x1, y1) = (np.clip(corner, 0, rgb.shape[1::-1]).astype(int) for corner in (low, high))
        step = max(1, max(x1 - x0, y1 - y0) // LOOKED_AT)
        patch = np.ascontiguousarray(rgb[y0:y1:step, x0:x1:step])
        if not patch.size:
            counts.append(np.zeros(np.prod(BINS), np.float32))
            continue
        lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB)
        counted = cv2.calcHist([lab], [0, 1, 2], None, BINS, [0, 256, 88, 168, 88, 168]).ravel()
        counts.append(np.sqrt(counted / max(counted.sum(), 1)))  # so that dot products are Bhattacharyya coefficients
    return _unit(np.concatenate(counts))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def _misses(followed: list[bool], faces: list[Face | None]) -> bool:
    """Whether a face that was followed is lost."""
    return any(was and face is None for was, face in zip(followed, faces, strict=False))


class MultiFaceTracker:
    """Several faces at a time, each with a `FaceTrack` of its own: `faces = tracker.update(rgb, time)`.

    most  maximum number of people; a further one replaces a person who is not visible
    """

    def __init__(self, finder: FaceFinder, most: int, every: int = 5) -> None:
        self.finder, self.most, self.every = finder, most, every
        self.tracks: list[FaceTrack] = [FaceTrack(finder, every)] if most == 1 else []
        self._colours: list[np.ndarray] = []
        self._count = 0
        self._lost = True  # a face was lost in the last frame

    def update(self, rgb: np.ndarray, time: float, cut: bool = False) -> list[Face | None]:
        """Look at the next frame, as `FaceTrack.update` → a face, or None, for each person known so far.

        cut: a new scene begins with it, so earlier positions are ignored
        """
        for track in self.tracks if cut else ():
            track.following = False
        if self.most == 1:
            return [self.tracks[0].update(rgb, time)]
        followed = [track.following for track in self.tracks]
        due, thorough = cut or self._lost or self._count % self.every == 0, self._count % THOROUGH_EVERY == 0
        self._count += 1
        faces = [] if due else [track.update(rgb, time, []) for track in self.tracks]
        if due or _misses(followed, faces):
            found = self.finder.faces(rgb, thorough)
            for track in self.tracks:  # a face that jumped may be anywhere, like one that was lost
                jumped = bool(found) and track.following and min(map(track.distance_to, found)) > SAME_FACE
                if jumped and not track.still_there(rgb):
                    track.following = False
            assigned = self._assign(found, [colours(rgb, face) for face in found], cut)
            known = dict(enumerate(faces))
            faces = [known.get(who) or track.update(rgb, time, [assigned[who]] if who in assigned else [])
                     for who, track in enumerate(self.tracks)]
        self._separate(rgb, faces)
        self._lost = not any(faces) or _misses(followed, faces)
        return faces

    def _assign(self, found: list[Face], seen: list[np.ndarray], cut: bool) -> dict[int, Face]:
        """Each track's detection; new tracks are made for detections that belong to none.

        A face that is followed must be near. A lost one may be anywhere, and after a cut all are lost.
        """
        assigned: dict[int, int] = {}
        left = list(range(len(found)))
        for _, who, i in sorted(self._candidates(found, seen, cut)):
            if who not in assigned and i in left:
                assigned[who] = i
                left.remove(i)
        for who, i in assigned.items():
            self._colours[who] = _unit((1 - LEARN) * self._colours[who] + LEARN * seen[i])
        for i in left:  # largest first, as found
            free = sorted((track.last_seen, who) for who, track in enumerate(self.tracks)
                          if who not in assigned and not track.following)
            if len(self.tracks) < self.most:
                self.tracks.append(FaceTrack(self.finder, self.every))
                self._colours.append(seen[i])
                assigned[len(self.tracks) - 1] = i
            elif free:
                who = free[0][1]  # of the people who are not visible, the one lost longest ago
                self._colours[who] = seen[i]
                assigned[who] = i
        return {who: found[i] for who, i in assigned.items()}

    def _candidates(self, found: list[Face], seen: list[np.ndarray], cut: bool) -> list[tuple[float, int, int]]:
        """(dissimilarity, track, detection) of all pairs that may belong together."""
        possible = []
        for who, track in enumerate(self.tracks):
            for i, face in enumerate(found):
                distance = SAME_FACE if cut else track.distance_to(face)
                dissimilarity = PLACE * min(distance / SAME_FACE, 1) + 1 - float(self._colours[who] @ seen[i])
                if distance <= SAME_FACE if track.following else dissimilarity <= UNLIKE:
                    possible.append((dissimilarity, who, i))
        return possible

    def _separate(self, rgb: np.ndarray, faces: list[Face | None]) -> None:
        """Where two tracks follow one face, drop the track whose colours fit it less: its own face is occluded."""
        for one, other in combinations(range(len(faces)), 2):
            if faces[one] and faces[other] and self.tracks[one].distance_to(faces[other]) < ON_TOP:
                seen = colours(rgb, faces[one])
                loser = min(one, other, key=lambda who: float(self._colours[who] @ seen))
                self.tracks[loser].following, faces[loser] = False, None
