"""Who is who, when several faces are followed at a time: by place, and by the colours of face and hair.

Nothing is learnt or recognised: two people whose faces and hair have the same colours are told apart by place alone.
"""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np

from .detector import Face, FaceFinder
from .tracker import SAME_FACE, THOROUGH_EVERY, FaceTrack

LOOKED_AT = 48                       # pixels: the larger side of what colours are counted in
BINS = (8, 6, 6)                     # of lightness, and of the two axes of colour, which end at ± 40
REGIONS = ((0.45, -0.5, 0.5), (0.55, -0.85, -0.35))
"""Face and hair around the centre of the box, in box sides: half the width, top, bottom."""
UNLIKE = 0.6                         # what may speak against it at most where somebody comes back
PLACE = 0.3                          # of which so much is for another place; the rest, for other colours
LEARN = 0.2                          # share of what is seen now in what is remembered of somebody's colours
ON_TOP = 0.5                         # box sides between two faces that are one: somebody went behind somebody else


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
    """Whether somebody who was followed is no more."""
    return any(was and face is None for was, face in zip(followed, faces, strict=False))


class People:
    """Several faces at a time, each with a `FaceTrack` of its own: `faces = people.update(rgb, time)`.

    most  people at most; who comes when so many are known takes the place of one who is not to be seen
    """

    def __init__(self, finder: FaceFinder, most: int, every: int = 5) -> None:
        self.finder, self.most, self.every = finder, most, every
        self.tracks: list[FaceTrack] = [FaceTrack(finder, every)] if most == 1 else []
        self._colours: list[np.ndarray] = []
        self._count = 0
        self._lost = True  # somebody, with the last frame

    def update(self, rgb: np.ndarray, time: float, cut: bool = False) -> list[Face | None]:
        """Look at the next frame, as `FaceTrack.update` → a face, or None, for each person known so far.

        cut: another scene begins with it, so that places of before mean nothing
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
            for track in self.tracks:  # who has jumped may be anywhere, as whoever was lost
                if found and track.following and min(map(track.away, found)) > SAME_FACE and not track.holds(rgb):
                    track.following = False
            mine = self._shared_out(found, [colours(rgb, face) for face in found], cut)
            known = dict(enumerate(faces))
            faces = [known.get(who) or track.update(rgb, time, [mine[who]] if who in mine else [])
                     for who, track in enumerate(self.tracks)]
        self._part(rgb, faces)
        self._lost = not any(faces) or _misses(followed, faces)
        return faces

    def _shared_out(self, found: list[Face], seen: list[np.ndarray], cut: bool) -> dict[int, Face]:
        """Each track's detection; tracks are made for those that are nobody's.

        Whoever is followed is near. Whoever was lost may be anywhere, and after a cut everybody is lost.
        """
        mine: dict[int, int] = {}
        left = list(range(len(found)))
        for _, who, i in sorted(self._candidates(found, seen, cut)):
            if who not in mine and i in left:
                mine[who] = i
                left.remove(i)
        for who, i in mine.items():
            self._colours[who] = _unit((1 - LEARN) * self._colours[who] + LEARN * seen[i])
        for i in left:  # largest first, as found
            free = sorted((track.last_seen, who) for who, track in enumerate(self.tracks)
                          if who not in mine and not track.following)
            if len(self.tracks) < self.most:
                self.tracks.append(FaceTrack(self.finder, self.every))
                self._colours.append(seen[i])
                mine[len(self.tracks) - 1] = i
            elif free:
                who = free[0][1]  # of those who are not to be seen, the one lost longest ago
                self._colours[who] = seen[i]
                mine[who] = i
        return {who: found[i] for who, i in mine.items()}

    def _candidates(self, found: list[Face], seen: list[np.ndarray], cut: bool) -> list[tuple[float, int, int]]:
        """(what speaks against it, track, detection) of all that may belong together."""
        possible = []
        for who, track in enumerate(self.tracks):
            for i, face in enumerate(found):
                away = SAME_FACE if cut else track.away(face)
                unlike = PLACE * min(away / SAME_FACE, 1) + 1 - float(self._colours[who] @ seen[i])
                if away <= SAME_FACE if track.following else unlike <= UNLIKE:
                    possible.append((unlike, who, i))
        return possible

    def _part(self, rgb: np.ndarray, faces: list[Face | None]) -> None:
        """Two tracks on one face: the one whose person looks less like it has lost theirs behind somebody else."""
        for one, other in combinations(range(len(faces)), 2):
            if faces[one] and faces[other] and self.tracks[one].away(faces[other]) < ON_TOP:
                seen = colours(rgb, faces[one])
                loser = min(one, other, key=lambda who: float(self._colours[who] @ seen))
                self.tracks[loser].following, faces[loser] = False, None
