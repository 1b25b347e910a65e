"""People that several test files of the studio draw, and when two of them are the same."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from vtoonify_lib.faces.parsing_maps import CLASS_NAMES
from vtoonify_lib.studio import clips
from vtoonify_lib.studio.people import Person, sample_z

PEOPLE = sample_z(np.random.default_rng(5), 12)
CLASS = {name: i for i, name in enumerate(CLASS_NAMES)}
FFHQ = np.array([1.0, 0, 0, 0])


def easy(who: Person) -> Person:
    """The person with nothing before the face, looking more or less into the camera, eyes open."""
    return clips.calm(who).with_(hair=None, glasses=None, pose=who.pose * [0.5, 0.5, 1.0])


def same(a: object, b: object) -> bool:
    """Equality of people and what they are made of."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return not differences(a, b) if isinstance(a, Person) else bool(np.array_equal(a, b))


def differences(a: Person, b: Person) -> set[str]:
    return {f.name for f in fields(Person) if not same(getattr(a, f.name), getattr(b, f.name))}
