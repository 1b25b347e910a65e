"""Speech without words: random syllables, the mouth that says them, and a synthetic voice in time with it.

The voice is the source-filter model (Fant 1960), written as a sum of harmonics: glottal pulses whose spectrum falls by
6 dB an octave at the lips, times the resonances of the vocal tract; breath and consonants are noise in the same or
other bands. It sounds like a person talking in a made-up language; nobody's voice was recorded.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE = 48_000
CONTROL_RATE = 200
"""Sound samples and control points a second."""

MOUTH_LEAD = 0.04
"""Lips move this many seconds before the sound they make (coarticulation)."""

SPEECH_RMS, PEAK = 0.11, 0.7
"""Level of the voice: about −19 dB below full scale while it speaks, as films and calls are mixed."""


@dataclass(frozen=True)
class Phone:
    """A speech sound.

    mouth     action unit → weight
    formants  hertz, the first three resonances
    voice     0 … 1, strength of the glottal pulses; breath: of noise through the same resonances
    hiss      strength, centre and width (hertz) of a consonant's own noise
    """

    mouth: dict[str, float]
    formants: tuple[float, float, float] = (500, 1500, 2500)
    voice: float = 0.0
    breath: float = 0.0
    hiss: tuple[float, float, float] = (0.0, 5000.0, 1500.0)


REST = Phone({})
VOWELS = {
    "a": Phone({"mouth-open": 0.36}, (780, 1250, 2550), 0.65, 0.03),
    "e": Phone({"mouth-open": 0.26, "mouth-retraction": 0.30}, (520, 1850, 2550), 0.9, 0.03),
    "i": Phone({"mouth-open": 0.10, "mouth-parling": 0.35, "mouth-retraction": 0.40}, (300, 2250, 3000), 1.0, 0.03),
    "o": Phone({"mouth-open": 0.30, "mouth-pursing": 0.38}, (480, 900, 2450), 0.9, 0.03),
    "u": Phone({"mouth-open": 0.16, "mouth-pursing": 0.60}, (320, 800, 2300), 1.1, 0.03),
    "@": Phone({"mouth-open": 0.20, "mouth-parling": 0.20}, (520, 1450, 2500), 0.7, 0.03),
}
_CLOSED, _NARROW = {"mouth-compression": 0.30}, {"mouth-open": 0.06, "mouth-parling": 0.35}
CONSONANTS = {
    "m": Phone(_CLOSED, (260, 1100, 2200), 0.32),
    "b": Phone(_CLOSED, (260, 900, 2200), 0.12, hiss=(0.25, 700, 600)),
    "p": Phone(_CLOSED, hiss=(0.35, 900, 800)),
    "n": Phone(_NARROW, (280, 1500, 2500), 0.34),
    "d": Phone(_NARROW, (280, 1700, 2600), 0.14, hiss=(0.3, 3800, 1500)),
    "t": Phone(_NARROW, hiss=(0.5, 4200, 1600)),
    "s": Phone({"mouth-open": 0.04, "mouth-parling": 0.45, "mouth-retraction": 0.15}, hiss=(0.65, 6500, 1600)),
    "l": Phone({"mouth-open": 0.16, "mouth-parling": 0.15}, (360, 1150, 2700), 0.55),
    "w": Phone({"mouth-open": 0.08, "mouth-pursing": 0.55}, (300, 700, 2250), 0.5),
    "j": Phone({"mouth-open": 0.08, "mouth-retraction": 0.30}, (290, 2150, 2900), 0.55),
}


@dataclass(frozen=True)
class Utterance:
    """Phones in order.

    edges    [k+1] seconds: phone i lasts from edges[i] to edges[i + 1]
    stress   [k] in [0,1]
    falling  [k] place in the phrase, from 0 at its beginning to 1 at its end
    """

    phones: list[Phone]
    edges: np.ndarray
    stress: np.ndarray
    falling: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """Index of the phone said at each time, [n] int."""
        return np.clip(np.searchsorted(self.edges, times, "right") - 1, 0, len(self.phones) - 1)

    def track(self, values: list[float], times: np.ndarray, blur: float) -> np.ndarray:
        """One value a phone → a curve at `times` (evenly spaced), smoothed by a Gaussian of `blur` seconds."""
        fine = np.arange(times[0] - 4 * blur, times[-1] + 4 * blur, 1 / CONTROL_RATE)
        steps = np.asarray(values, float)[self.at(fine)]
        reach = np.arange(-int(3 * blur * CONTROL_RATE) - 1, int(3 * blur * CONTROL_RATE) + 2)
        kernel = np.exp(-0.5 * (reach / (blur * CONTROL_RATE)) ** 2)
        padded = np.pad(steps, len(reach) // 2, mode="edge")
        return np.interp(times, fine, np.convolve(padded, kernel / kernel.sum(), "valid"))


def babble(rng: np.random.Generator, seconds: float) -> Utterance:
    """Phrases of 4 to 8 syllables, four or five a second, with pauses between; silent at both ends."""
    quiet = min(0.25, seconds / 8)
    said = [(REST, quiet, 0.0, 0.0)]  # phone, seconds, stress, place in the phrase
    end = seconds - quiet - 0.2

    def now() -> float:
        return sum(length for _, length, _, _ in said)

    while now() < end - 0.3:
        syllables = int(rng.integers(4, 9))
        for k in range(syllables):
            if now() > end - 0.25:
                break
            said += [(phone, length * rng.uniform(0.85, 1.2), stress, k / syllables)
                     for phone, length, stress in _syllable(rng, stressed=k % 2 == 0, last=k == syllables - 1)]
        said.append((REST, rng.uniform(0.28, 0.45), 0.0, 0.0))
    phones, lengths, stress, falling = zip(*said, strict=True)
    return Utterance(list(phones), np.cumsum([0, *lengths]), np.array(stress), np.array(falling))


def _syllable(rng: np.random.Generator, stressed: bool, last: bool) -> list[tuple[Phone, float, float]]:
    """Consonant, vowel and sometimes another consonant: (phone, seconds, stress) each."""
    stress = rng.uniform(0.7, 1.0) if stressed else rng.uniform(0.0, 0.4)
    vowel = str(rng.choice(list("aeiou") if stressed else list("aei@@")))
    out = [(CONSONANTS[str(rng.choice(list(CONSONANTS)))], 0.08, stress),
           (VOWELS[vowel], 0.10 + 0.05 * stress + 0.06 * last, stress)]
    if rng.random() < 0.2:
        out.append((CONSONANTS[str(rng.choice(["n", "s", "m", "l"]))], 0.06, 0.2))
    return out


def mouth_curves(utterance: Utterance, times: np.ndarray) -> dict[str, np.ndarray]:
    """Action unit → weights [n] at `times` (seconds, evenly spaced)."""
    out = {}
    for unit in sorted({unit for phone in utterance.phones for unit in phone.mouth}):
        weights = [phone.mouth.get(unit, 0.0) * (0.75 + 0.25 * stress)
                   for phone, stress in zip(utterance.phones, utterance.stress, strict=True)]
        out[unit] = utterance.track(weights, times + MOUTH_LEAD, blur=0.03)
    return out


def voice(utterance: Utterance, samples: int, pitch: float, tract: float, rng: np.random.Generator) -> np.ndarray:
    """Sound of an utterance: float32 [samples] in [−1,1] at RATE.

    pitch  hertz (a man's about 110, a woman's 200); tract: formants' scale (1 for a man, 1.15 for a woman)
    """
    times = np.arange(0, samples / RATE + 0.02, 1 / CONTROL_RATE)
    phones = utterance.phones

    def curve(values: list[float], blur: float = 0.012) -> np.ndarray:
        return utterance.track(values, times, blur)

    formants = tract * np.stack([curve([p.formants[i] for p in phones], 0.022) for i in range(3)], 1)
    loud = 0.6 + 0.4 * curve(list(utterance.stress), 0.03)
    f0 = pitch * (1.10 - 0.22 * curve(list(utterance.falling), 0.08)) * (1 + 0.14 * curve(list(utterance.stress), 0.05))
    f0 = f0 * (1 + 0.010 * _drift(rng, len(times), 3.0) + 0.004 * _drift(rng, len(times), 25.0))
    voiced = _harmonics(times, f0, formants, loud * curve([p.voice for p in phones]), samples)
    bands = np.fft.rfftfreq(1024, 1 / RATE)
    breath = curve([p.breath for p in phones])[:, None] * _resonance(bands[None], formants)
    strength, centre, width = (curve([p.hiss[i] for p in phones], 0.008)[:, None] for i in range(3))
    hiss = 0.35 * strength * np.exp(-0.5 * ((bands[None] - tract * centre) / width) ** 2)
    sound = _in_a_room(voiced + _noise(rng, times, loud[:, None] * (breath + hiss), samples), rng)
    speaking = np.abs(sound) > 0.1 * np.abs(sound).max()
    sound = sound * SPEECH_RMS / np.sqrt(np.mean(sound[speaking] ** 2))
    return (PEAK * np.tanh(sound / PEAK)).astype(np.float32)


def _resonance(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Gain of the vocal tract: frequency [t or 1,n], formants [t,3] → [t,n]; two upper formants follow the third."""
    gain = 1.0
    for f in np.c_[formants, 1.38 * formants[:, 2], 1.78 * formants[:, 2]].T[..., None]:
        gain = gain * f**2 / np.hypot(f**2 - frequency**2, frequency * (50 + 0.05 * f))
    return gain


def _harmonics(times: np.ndarray, f0: np.ndarray, formants: np.ndarray, level: np.ndarray, samples: int) -> np.ndarray:
    """Glottal pulses through the tract, band-limited: Σ level·gain(k·f0)/k·sin(k·phase)."""
    clock = np.arange(samples) / RATE
    phase = 2 * np.pi * np.cumsum(np.interp(clock, times, f0)) / RATE
    out = np.zeros(samples)
    for k in range(1, int(7500 / f0.min())):
        audible = np.clip((7500 - k * f0) / 1000, 0, 1)
        gain = level * audible / k * _resonance((k * f0)[:, None], formants)[:, 0]
        out += np.interp(clock, times, gain) * np.sin(k * phase)
    return out


def _noise(rng: np.random.Generator, times: np.ndarray, spectrum: np.ndarray, samples: int) -> np.ndarray:
    """White noise shaped by spectrum [len(times), 513], overlap-added in windows of 1024."""
    hop = RATE // CONTROL_RATE
    out = np.zeros(len(times) * hop + 1024)
    window = np.hanning(1025)[:-1] / np.sqrt(1024 * 1.5 * 512 / hop / 2)
    for i, row in enumerate(spectrum):
        phases = np.exp(2j * np.pi * rng.random(513))
        out[i * hop : i * hop + 1024] += window * np.fft.irfft(row * phases) * 512
    return out[512 : 512 + samples]


def _drift(rng: np.random.Generator, n: int, rate: float) -> np.ndarray:
    """Slow random wander [n] of about unit size, `rate` turns a second."""
    points = rng.standard_normal(int(n * rate / CONTROL_RATE) + 3)
    return np.interp(np.arange(n) * rate / CONTROL_RATE, np.arange(len(points)), points)


def _in_a_room(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A little of a furnished room's echo, so that the voice is not in a vacuum."""
    n = int(0.22 * RATE)
    tail = rng.standard_normal(n) * np.exp(-np.arange(n) / (0.045 * RATE)) * (np.arange(n) > 0.004 * RATE)
    tail = np.convolve(tail, np.ones(6) / 6, "same")
    size = 1 << (len(sound) + n).bit_length()
    echo = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    return sound + 0.22 * np.sqrt(np.mean(sound**2) / max(np.mean(echo**2), 1e-12)) * echo
