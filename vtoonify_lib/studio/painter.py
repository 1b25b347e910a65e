"""OpenGL plumbing of the studio: a context without a display, programs, vertex buffers, textures.

A `Painter` draws one `Part` with one program; which parts, in which order and in what colours is `render`'s business.
"""
from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from ..config import VToonifyError
from . import shaders, strands
from .geometry import Part
from .techniques import INK_FRAGMENT

ATTRIBUTES = {"in_position": 3, "in_normal": 3, "in_rest": 3, "in_uv": 2, "in_mask0": 4, "in_mask1": 4, "in_mask2": 4}
"""What a vertex carries: name in the shaders → how many floats."""

COARSEST = 3  # level of the strands' texture: beyond it, neighbouring strips run together
VERTEX_BYTES = 4 * sum(ATTRIBUTES.values())
PROGRAMS = ("depth", "cut_out", "skin", "eye", "hair", "plain", "label", "tag", "flow")
SHADED = ("skin", "eye", "hair", "plain")
FORMS = {"": (), "_flat": ("DRAWN",), "_hand": ("DRAWN", "HAND")}
"""Forms of the shaded programs: with no technique of drawing, with flat tones, with clay and paint as well."""
NO_MASKS = np.float32([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
"""Masks of what is not the base mesh: no region of the skin, not occluded."""


@lru_cache(maxsize=1)
def _context() -> Any:
    """The one context of this process: two would take turns at being current, and draw into each other's pictures.

    Mesa and Triton, which comes with PyTorch's builds for GPUs, both bring an LLVM. Loaded after Mesa's, Triton's ends
    the process with a segmentation fault; before, it does no harm.
    """
    with suppress(ImportError):
        import triton  # noqa: F401
    try:
        import moderngl

        context = moderngl.create_context(standalone=True, backend="egl")
    except Exception as error:
        raise VToonifyError(f"no off-screen OpenGL ({error}); install moderngl (pip install 'vtoonify-lib[studio]') "
                            "and EGL (Debian: apt install libegl1 libgl1-mesa-dri)") from error
    context.gc_mode = "auto"  # what a studio allocated goes with it
    return context


class _Vertices:
    """Vertices on the graphics side, and whose positions they were last."""

    def __init__(self, painter: Painter, count: int):
        self.buffer = painter.gl.buffer(reserve=count * VERTEX_BYTES)
        self.positions: np.ndarray | None = None


class _Buffers:
    """A part's vertices on the graphics side, and where they are going (for the flow pass alone)."""

    def __init__(self, painter: Painter, part: Part, vertices: _Vertices):
        gl = painter.gl
        self.triangles_of, self.shared, self.vertices = part.triangles, vertices, vertices.buffer
        self.following = gl.buffer(reserve=len(part.positions) * 12)
        self.triangles = gl.buffer(np.ascontiguousarray(part.triangles, "i4"))
        self._arrays: dict[str, Any] = {}

    def array(self, painter: Painter, name: str) -> Any:
        """What a program reads, laid out for it at its first use: hair is another with every person."""
        if name not in self._arrays:
            program = painter.programs[name]
            content = [(self.vertices, *_layout(program))]
            if "in_next" in program:
                content.append((self.following, "3f", "in_next"))
            self._arrays[name] = painter.gl.vertex_array(program, content, self.triangles)
        return self._arrays[name]


class Painter:
    """Draws parts of people into whatever framebuffer is in use.

    masks [6357,11]: regions of the base mesh; its parts are recognised by their number of vertices.
    VToonifyError where moderngl or EGL is missing.
    """

    def __init__(self, masks: np.ndarray):
        self.gl = _context()
        self.masks = masks
        self._buffers: dict[str, _Buffers] = {}
        self._mesh = _Vertices(self, len(masks))  # parts of the base mesh share its vertices
        self._textures: dict[str | None, tuple[Any, float]] = {}
        self.programs = {name: self._program(name) for name in PROGRAMS}
        self.programs |= {name + form: self._program(name, FORMS[form]) for name in SHADED for form in FORMS if form}
        self._corners, self._screens = self.gl.buffer(np.array([-1, -1, 3, -1, -1, 3], "f4")), {}
        for name, fragment in (("backdrop", shaders.BACKDROP_FRAGMENT), ("ink", INK_FRAGMENT)):
            program = self.gl.program(shaders.SCREEN_VERTEX, fragment_shader=fragment)
            self._screens[name] = program, self.gl.vertex_array(program, [(self._corners, "2f", "in_corner")])
        # value noise: four random numbers a cell, blended linearly (a rasteriser reads four faster than one)
        grid = np.random.default_rng(7).integers(0, 256, (32, 32, 32, 4)).astype(np.uint8)
        self.noise = self.gl.texture3d((32, 32, 32), 4, grid)
        self._opaque = self.gl.texture((1, 1), 4, np.full(4, 255, np.uint8)), 0.3

    def _program(self, name: str, defined: tuple[str, ...] = ()) -> Any:
        vertex = shaders.FLOW_VERTEX if name == "flow" else shaders.VERTEX
        version, *rest = getattr(shaders, f"{name.upper()}_FRAGMENT").lstrip().splitlines()
        lines = [version, *(f"#define {macro}" for macro in defined), *rest]
        return self.gl.program(vertex, fragment_shader="\n".join(lines))

    def draw(self, program: str, name: str, part: Part, uniforms: dict[str, Any],
             following: np.ndarray | None = None) -> None:
        """Draw a part. `name` says which buffers to use: parts of one name have one topology.

        following [n,3]: where the vertices are in the next frame (program "flow").
        """
        _set(self.programs[program], uniforms)
        buffers = self._buffers.get(name)
        own = len(part.positions) == len(self.masks)
        if buffers is None or buffers.triangles_of is not part.triangles:
            vertices = self._mesh if own else _Vertices(self, len(part.positions))
            buffers = self._buffers[name] = _Buffers(self, part, vertices)
        if buffers.shared.positions is not part.positions:
            masks = np.tile(NO_MASKS, (len(part.positions), 1))
            if own:
                masks[:, : self.masks.shape[1]] = self.masks
            if part.own is not None:
                masks[:, -part.own.shape[1]:] = part.own
            columns = [part.positions, part.normals, part.rest, part.uv, masks]
            buffers.vertices.write(np.concatenate(columns, 1, dtype=np.float32).tobytes())
            buffers.shared.positions = part.positions
        if following is not None:
            buffers.following.write(np.ascontiguousarray(following, "f4").tobytes())
        buffers.array(self, program).render()

    def draw_screen(self, name: str, uniforms: dict[str, Any]) -> None:
        """All over the framebuffer: "backdrop", before which what was drawn is put (texture unit `u_drawn`), or "ink",
        lines along the edges of exact buffers (texture unit `u_exact`)."""
        program, corners = self._screens[name]
        _set(program, uniforms)
        corners.render()

    def texture(self, name: str | None) -> dict[str, Any]:
        """Uniforms that bind a texture ("strands", or None: opaque); `u_mean` is its opaque part's mean luminance."""
        if name not in self._textures:
            self._textures[name] = self._strands() if name else self._opaque
        texture, mean = self._textures[name]
        texture.use(1)
        return {"u_texture": 1, "u_mean": mean}

    def _strands(self) -> tuple[Any, float]:
        pixels = strands.texture()
        texture = self.gl.texture(pixels.shape[1::-1], 4, np.ascontiguousarray(pixels))
        texture.repeat_x = texture.repeat_y = False
        texture.build_mipmaps(max_level=COARSEST)
        texture.filter = 0x2701, 0x2601  # GL_LINEAR_MIPMAP_NEAREST, GL_LINEAR: half the taps of the usual filter
        opaque = pixels[pixels[..., 3] > 128]
        return texture, float((opaque[:, :3] @ [0.3, 0.59, 0.11]).mean() / 255)


def _layout(program: Any) -> list[str]:
    """Buffer layout for a program: attributes it does not read become padding."""
    members = set(program)
    layout = " ".join(f"{n}f" if name in members else f"{n}x4" for name, n in ATTRIBUTES.items())
    return [layout, *(name for name in ATTRIBUTES if name in members)]


def _set(program: Any, uniforms: dict[str, Any]) -> None:
    """Hand over the uniforms that a program has; a matrix [4,4] maps column vectors."""
    for name, value in uniforms.items():
        member = program.get(name, None)  # `name in program` would go through all of them
        if member is None:
            continue
        if isinstance(value, np.ndarray):
            member.write((value.T if value.shape == (4, 4) else value).astype("f4").tobytes())
        else:
            member.value = value
