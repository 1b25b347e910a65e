"""Sizes of the networks as frozen dataclasses, the presets, and the error every part raises for the user.

Everything a network needs to know about sizes follows from a :class:`GeneratorConfig`, an input size and
:data:`HANDOFF`. Style-layer arithmetic lives in ``models.latents``; nothing here touches torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HANDOFF = 32
"""Resolution at which VToonify's encoder hands over to StyleGAN's layers; the one number behind 7, 11 and 18."""

PARSING_CLASSES = 19
"""Face-parsing classes, CelebAMask-HQ order (background, skin, brows, eyes, …, hair, hat)."""

PARSING_SCALE = 1 / 16
"""Parsing logits span about ±16; scaled so that they enter the encoder with the range of the RGB channels."""

INPUT_CHANNELS = 3 + PARSING_CLASSES
"""RGB and parsing logits, the 22 channels VToonify reads."""

BACKBONES = ("toonify", "dualstylegan")

MOST_SHARPENED = 2.0
"""Beyond it a picture is noise: what a damaged description may ask for."""

MOST_LAYERS = 64
"""Of a mapping network; published ones have 8. A damaged description must not keep us busy making layers."""


HERE = Path(__file__).resolve().parent
DATA = HERE / "data" if (HERE / "data").is_dir() else HERE.parent / "data"
"""Bundles, samples and styles: in the package where it was installed from a wheel, else beside it."""


CODES = {
    "value": "a number, shape, name or combination that cannot be; what has no other code",
    "unknown": "there is no bundle, preset, style or part of that name",
    "unable": "this bundle cannot do what is asked for, another one can",
    "mismatch": "made by other weights, or another bundle, than those at hand",
    "no-face": "no face was found",
    "missing": "a file or folder to read is not there",
    "unreadable": "a file is damaged, of another format, or does not hold what it should",
    "unsafe": "a file would run something when it is read",
    "changed": "a file is not the one that is known by its name: its sha256 differs",
    "unfetched": "a file cannot be downloaded, or came only in part",
    "unwritable": "a file cannot be written there, or under that name",
}
"""Kinds of mistakes, for programs: the sentences may change."""


class VToonifyError(ValueError):
    """A mistake the user can mend. The message is one sentence or two: what we got, what we expected, what to do.

    code  its kind, one of CODES
    """

    def __init__(self, message: str, code: str = "value") -> None:
        super().__init__(message)
        self.code = code


def exit_code(work: Callable[[], object]) -> int:
    """Do a command's work and print what it returns, if anything → 0, or 2 or 130 and a line on stderr."""
    try:
        said = work()
    except VToonifyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; where work can be resumed, the same command goes on from here", file=sys.stderr)
        return 130
    if said is not None:
        print(said)
    return 0


def is_power_of_two(n: int) -> bool:
    """True for 1, 2, 4, 8, …"""
    return n > 0 and n & (n - 1) == 0


def resolutions(size: int) -> tuple[int, ...]:
    """Resolutions of a generator of `size` pixels: 4, 8, …, size."""
    return tuple(2**k for k in range(2, size.bit_length()))


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of a StyleGAN2 generator (and of the discriminator that faces it).

    size       output resolution, a power of two, at least 8
    style_dim  length of z and w
    n_mlp      layers of the mapping network
    channels   ((resolution, channels), …) for every resolution from 4 to size; larger resolutions are ignored,
               empty means the published widths with multiplier 2
    """

    size: int
    style_dim: int = 512
    n_mlp: int = 8
    channels: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not is_power_of_two(self.size) or self.size < 8:
            raise VToonifyError(f"generator size is {self.size}; it must be a power of two, 8 or more")
        widths = dict(self.channels) or published_widths(self.size, multiplier=2)
        missing = [r for r in resolutions(self.size) if r not in widths]
        if missing:
            raise VToonifyError(f"no channels given at resolution {missing[0]}; every power of two from 4 to "
                                f"{self.size} needs an entry in `channels`")
        if min(self.style_dim, self.n_mlp, *widths.values()) < 1 or self.n_mlp > MOST_LAYERS:
            raise VToonifyError(f"style_dim, n_mlp and all channels must be 1 or more, n_mlp {MOST_LAYERS} at the most")
        object.__setattr__(self, "channels", tuple((r, int(widths[r])) for r in resolutions(self.size)))

    @classmethod
    def published(cls, size: int, multiplier: int = 2) -> GeneratorConfig:
        """StyleGAN2 config-f: 512 channels up to 32², then 256m, 128m, 64m, 32m, 16m at 64² … 1024²."""
        return cls(size, channels=tuple(published_widths(size, multiplier).items()))

    def width(self, resolution: int) -> int:
        """Channels of the feature map at `resolution`."""
        return dict(self.channels)[resolution]


@dataclass(frozen=True)
class VToonifyConfig:
    """Sizes of a VToonify: the generator it builds on and the input size its encoder is laid out for.

    in_size    nominal input resolution: a power of two, at least HANDOFF and smaller than the generator's size
    backbone   "toonify" (VToonify-T) or "dualstylegan" (VToonify-D)
    face_size  side of the FFHQ square in the input, in pixels, that the weights were trained for; None: in_size. All
               layers are convolutions, so that a small network may be trained on, and draw, large faces
    detail     pixels of the photograph per input pixel and side, which the network reads beside its input and carries
               over into a picture of as many pixels (`models.detail`): out_size/in_size, or a multiple of it. None: the
               published form, which knows the photograph at input size only
    sharpen    how much finest detail is amplified in pictures, in use and not in training (`media.images.sharpened`)
    """

    generator: GeneratorConfig
    in_size: int
    backbone: str = "toonify"
    face_size: int | None = None
    detail: int | None = None
    sharpen: float | None = None

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise VToonifyError(f"backbone is {self.backbone!r}; it must be one of {', '.join(BACKBONES)}")
        if not is_power_of_two(self.in_size) or not HANDOFF <= self.in_size < self.out_size:
            raise VToonifyError(f"in_size is {self.in_size}; it must be a power of two from {HANDOFF} to "
                                f"{self.out_size // 2} (half the generator's size)")
        if self.face_size is not None and self.face_size < HANDOFF:
            raise VToonifyError(f"face_size is {self.face_size}; it must be at least {HANDOFF}, or None for in_size")
        if self.detail is not None and (self.detail < 1 or self.detail % self.generator_scale):
            raise VToonifyError(f"detail is {self.detail}; it must be a multiple of {self.generator_scale} (out_size "
                                "over in_size), or None")
        if self.sharpen is not None and not 0 <= self.sharpen <= MOST_SHARPENED:
            raise VToonifyError(f"sharpen is {self.sharpen}; it must be from 0 to {MOST_SHARPENED:g}, or None")

    @property
    def framing_size(self) -> int:
        """Side of the FFHQ square in the input: a crop plan puts the eyes a quarter of it apart."""
        return self.face_size or self.in_size

    @property
    def out_size(self) -> int:
        """The generator's output resolution for a square input of in_size."""
        return self.generator.size

    @property
    def generator_scale(self) -> int:
        """The generator's output pixels per input pixel, along each side."""
        return self.out_size // self.in_size

    @property
    def scale(self) -> int:
        """Pixels of the picture per input pixel, along each side."""
        return self.detail or self.generator_scale

    @property
    def input_channels(self) -> int:
        """Of what the network reads: RGB, parsing logits, and the photograph's pixels within each input pixel."""
        return INPUT_CHANNELS + (3 * self.detail**2 if self.detail else 0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; :meth:`from_dict` reverses it."""
        plain = {name: value for name, value in asdict(self).items() if value is not None}
        plain["generator"]["channels"] = [list(pair) for pair in self.generator.channels]  # as JSON gives them back
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VToonifyConfig:
        """Reverse of :meth:`to_dict`."""
        try:
            generator = data["generator"]
            sizes = (int(generator[name]) for name in ("size", "style_dim", "n_mlp"))
            widths = tuple((int(r), int(c)) for r, c in generator["channels"])
            kinds = {"face_size": int, "detail": int, "sharpen": float}
            more = {name: kind(data[name]) for name, kind in kinds.items() if data.get(name) is not None}
            return cls(GeneratorConfig(*sizes, widths), int(data["in_size"]), data["backbone"], **more)
        except VToonifyError:
            raise
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise VToonifyError(f"VToonify description is incomplete ({error!r}); expected generator (size, "
                                "style_dim, n_mlp, channels), in_size and backbone") from error


def published_widths(size: int, multiplier: int) -> dict[int, int]:
    """Channels of the published generators: {resolution: channels} up to `size`."""
    return {r: 512 if r <= 32 else 16384 // r * multiplier for r in resolutions(size)}


TINY = VToonifyConfig(
    GeneratorConfig(64, style_dim=32, n_mlp=2, channels=((4, 16), (8, 16), (16, 16), (32, 16), (64, 16))), in_size=32)
"""The smallest legal network; every test that needs no trained weights uses it."""

STUDIO = VToonifyConfig(
    GeneratorConfig(256, style_dim=128, n_mlp=4,
                    channels=((4, 96), (8, 96), (16, 96), (32, 96), (64, 64), (128, 48), (256, 32))), in_size=128)
"""Ours: trained from zero by this repository, runs on a laptop."""

LARGE = VToonifyConfig(
    GeneratorConfig(1024, style_dim=128, n_mlp=4,
                    channels=((4, 144), (8, 144), (16, 144), (32, 144), (64, 128), (128, 96), (256, 80), (512, 48),
                              (1024, 24))), in_size=256)
"""Ours at the paper's sizes: 256 → 1024, 89 GFLOP a frame (VToonify-D 94), the network 9.9 MB on disk (16.2).

Widths at 32² … 1024², and seconds a 256² frame of T | D in bfloat16 (float32) on two cores of an AMD EPYC, folded:
128, 112, 96, 64, 32, 16: .23 (.43) | .26 (.63); 160, 128, 96, 64, 32, 16: .26 (.51) | .30 (.58); these: .34 (.71) |
.38 (.72); 144, 128, 112, 96, 64, 32: – (1.0) | .47 (1.0). STUDIO's 128² frame takes .04 (.06).
"""

MEDIUM = replace(LARGE, generator=replace(LARGE.generator, size=512))
"""256 → 512, the same widths."""

SIZES = {"large": LARGE, "medium": MEDIUM, "fast": STUDIO}
"""Our networks by name; `replace(config, backbone="dualstylegan")` makes VToonify-D of one."""

PUBLISHED = VToonifyConfig(GeneratorConfig.published(1024, multiplier=2), in_size=256)
"""The sizes of the released VToonify-T checkpoints."""

PUBLISHED_D = replace(PUBLISHED, backbone="dualstylegan")
"""The sizes of the released VToonify-D checkpoints."""
