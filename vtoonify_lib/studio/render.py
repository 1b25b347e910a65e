"""Off-screen portraits with exact ground truth: OpenGL through EGL, so a software rasteriser on a server will do.

One `Studio` draws `Scene`s: the picture (supersampled), and from the same geometry the 19-class parsing map in
BiSeNet's class order, 68 landmarks, depth, and where every visible point goes in the next frame. It does not choose
people or styles.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .geometry import VIEWPOINT, Part, Scene, Sculptor, project, widen
from .kit import Kit
from .painter import Painter
from .people import Person
from .styles import PHOTO, Style, restyle

LABEL = {"skin": 1, "brow": 2, "l_eye": 4, "r_eye": 5, "glasses": 6, "mouth": 11, "hair": 17}
"""Class with which a part is drawn. The shader finds ears, nose, lips, neck and cloth in skin, and parts the brows."""

SHADOW_SIZE = 512
OCCLUSION_DIRECTIONS = 96
SOLID_STRAND = 0.55  # opacity from which a strand hides what is behind it; below, it is blended
TOOTH, TONGUE, SCLERA, LASH = np.array([[0.74, 0.70, 0.62], [0.45, 0.13, 0.12], [0.80, 0.76, 0.74], [0.012] * 3])


@dataclass(frozen=True)
class Portrait:
    """A render and its ground truth.

    image      uint8 [H,W,3]
    parsing    uint8 [H,W], 19 classes, l_ = the subject's left; None where it was not asked for
    landmarks  float32 [68,2] x, y in pixels; (0.5, 0.5) is the middle of the top left pixel
    depth      float32 [H,W] decimetres along the camera's axis, inf on the backdrop; None as above
    """

    image: np.ndarray
    parsing: np.ndarray | None
    landmarks: np.ndarray
    depth: np.ndarray | None


class Studio:
    """`Studio(size=256).portrait(person, style) → Portrait`.

    kit      a Kit that is loaded already
    size     side of a square picture, or (height, width)
    fine     2: the picture is drawn twice as large, and averaged; 1: with hard edges, in half the time
    VToonifyError without the base mesh, moderngl or EGL.
    """

    def __init__(self, kit: Kit | None = None, size: int | tuple[int, int] = 256, fine: int = 2):
        self.kit = kit or Kit()
        self.sculptor = Sculptor(self.kit)
        self._painter = Painter(self.sculptor.regions.masks.copy())
        self.gl = gl = self._painter.gl
        self.height, self.width = (size, size) if isinstance(size, int) else size
        area = (self.width, self.height)
        large = (self.width * fine, self.height * fine)
        self._drawn = gl.texture(large, 4)
        self._canvas = gl.framebuffer([self._drawn], gl.depth_renderbuffer(large))
        self._picture = gl.simple_framebuffer(area, 4)
        self._exact = gl.framebuffer([gl.texture(area, 4, dtype="f4")], gl.depth_texture(area))
        self._lines = gl.framebuffer([gl.texture(large, 4, dtype="f4")], gl.depth_texture(large))
        self._shadow_map = gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.compare_func = "<="
        self._shadow = gl.framebuffer([], self._shadow_map)
        self._painter.masks[:, 7] = self._occlusion()

    # -- public ---------------------------------------------------------------------------------------------------
    def portrait(self, person: Person, style: Style = PHOTO, truth: bool = True,
                 square: tuple[float, float, float] | None = None) -> Portrait:
        """Draw one person in one style.

        truth   with False, the parsing map and depth are skipped (and None)
        square  left, top and side, in pixels, of the FFHQ square in the picture; default: the largest, in the middle
        """
        dressed = restyle(person, style)
        scene = self.sculptor.scene(dressed, style.warp)
        scene = replace(scene, camera=widen(scene.camera, self.height, self.width, square))
        return self.draw(scene, dressed, style, truth)

    def draw(self, scene: Scene, dressed: Person, style: Style = PHOTO, truth: bool = True) -> Portrait:
        """Draw an already built scene of a person whose colours are already those of the style."""
        shadow = self._draw_shadow(scene, dressed)
        image = self._draw_picture(scene, dressed, style, shadow)
        parsing, depth = self._draw_labels(scene, dressed) if truth else (None, None)
        points = project(scene.landmarks, scene.camera) * [self.width, self.height]
        return Portrait(image, parsing, points.astype(np.float32), depth)

    def flow(self, scene: Scene, following: Scene, dressed: Person) -> tuple[np.ndarray, np.ndarray]:
        """Motion of every visible point from one scene to the next of the same person and style.

        → displacement float32 [H,W,2] (x, y) in pixels, 0 on the backdrop; and the point's depth in the next scene,
        float32 [H,W] decimetres, inf on the backdrop. Irises move with the gaze, not with the eyeball's mesh.
        """
        self._exact.use()
        self._exact.clear(depth=1.0)
        self.gl.enable_only(self.gl.DEPTH_TEST)
        cameras = {"u_camera": scene.camera, "u_next_camera": following.camera}
        ends = _destinations(scene, following)
        for (name, part, _, texture), end in zip(_parts(scene, dressed), ends, strict=True):
            self._painter.draw("flow", name, part, {**cameras, **self._painter.texture(texture)}, end)
        x, y, depth, drawn = np.moveaxis(self._read_exact(4), -1, 0)
        half = np.array([self.width, self.height]) / 2
        rows, columns = np.mgrid[: self.height, : self.width] + 0.5
        move = np.stack([x, y], -1) * half + half - np.stack([columns, rows], -1)
        seen = drawn > 0
        return np.where(seen[..., None], move, 0).astype(np.float32), np.where(seen, depth, np.inf)

    def exact(self, scene: Scene, dressed: Person) -> np.ndarray:
        """What each pixel sees: class / 255, depth (decimetres), normal x and y, float32 [H,W,4]; 0 on the backdrop."""
        self._draw_exact(self._exact, scene, dressed)
        return self._read_exact(4)

    # -- passes ---------------------------------------------------------------------------------------------------
    def _draw_shadow(self, scene: Scene, person: Person) -> np.ndarray:
        """Depth of body and hair as the key light sees them → world-to-light matrix."""
        matrix = _orthographic(person.light["key_dir"])
        self._shadow.use()
        self._shadow.clear(depth=1.0)
        self.gl.enable_only(self.gl.DEPTH_TEST)
        self._painter.draw("depth", "body", scene.body, {"u_camera": matrix})
        if scene.hair is not None:
            self._painter.draw("depth", "hair", scene.hair, {"u_camera": matrix})
        return matrix

    def _draw_picture(self, scene: Scene, person: Person, style: Style, shadow: np.ndarray) -> np.ndarray:
        gl = self.gl
        self._canvas.use()
        self._canvas.depth_mask = True
        gl.enable_only(gl.NOTHING)
        self._painter.noise.use(6)
        self._shadow_map.use(7)
        self._canvas.clear(depth=1.0)
        gl.enable(gl.DEPTH_TEST)
        lights = ("key_dir", "key", "fill_dir", "fill", "sky", "ground", "rim")
        common = {
            **{f"u_{name}": person.light[name] for name in lights}, **_garment(person), **_scalp(person),
            "u_shadow_strength": person.light["shadow"], "u_shadow_map": 7, "u_noise": 6, **_technique(style),
            "u_camera": scene.camera, "u_shadow": shadow, "u_eye": VIEWPOINT,
        }
        strands = self._strands(scene, person, common)
        self._lay_strands(strands[2:])
        self._draw_flesh(scene, person, common)
        self._draw_strands(strands[2:], 0)
        self._draw_strands(strands[:2], 1)
        if style.ink > 0:
            self._draw_ink(scene, person, style)
        gl.enable_only(gl.NOTHING)
        self._picture.use()
        self._drawn.use(5)
        self._painter.draw_screen("backdrop", {
            **{f"u_{name}": value for name, value in person.backdrop.items()}, "u_noise": 6,
            "u_aspect": np.array([self.width, self.height]) / max(self.width, self.height),
            "u_drawn": 5, "u_size": np.array([self.width, self.height])})
        pixels = np.frombuffer(self._picture.read(components=3), np.uint8)
        return pixels.reshape(self.height, self.width, 3).copy()

    def _draw_flesh(self, scene: Scene, person: Person, common: dict[str, Any]) -> None:
        """All that is solid: skin and cloth, eyes, teeth, tongue, spectacles."""
        gl, draw, skin, clothes, form = self.gl, self._painter.draw, person.skin, person.clothes, common["form"]
        gl.enable(gl.CULL_FACE)
        gl.front_face = "cw"  # picture rows run downwards, which turns every triangle over
        draw("skin" + form, "body", scene.body, {
            **common, **{f"u_{name}": value for name, value in skin.items()},
            "u_skin": skin["tone"], "u_beard_colour": skin["beard_color"],
            "u_cloth": clothes["color"], "u_shirt": clothes["shirt"], "u_tie": clothes["tie"],
            "u_stripes": clothes["stripes"]})
        for name, eye in zip(("l_eye", "r_eye"), scene.eyes, strict=True):
            draw("eye" + form, name, eye.part, {
                **common, "u_centre": eye.center, "u_gaze": eye.gaze, "u_up": eye.up, "u_iris": person.iris,
                "u_iris2": person.iris2, "u_iris_size": person.iris_size, "u_pupil": person.pupil, "u_sclera": SCLERA})
        gl.disable(gl.CULL_FACE)
        draw("plain" + form, "teeth", scene.teeth, {
            **common, "u_shadow_strength": 0.5 * person.light["shadow"], "u_colour": TOOTH, "u_shine": 0.05})
        draw("plain" + form, "tongue", scene.tongue, {**common, "u_colour": TONGUE, "u_shine": 0.03})
        if scene.glasses is not None:
            draw("plain" + form, "glasses", scene.glasses, {
                **common, "u_colour": person.glasses["color"], "u_shine": 0.15})

    def _strands(self, scene: Scene, person: Person, common: dict[str, Any]) -> list[tuple[Part, str, dict[str, Any]]]:
        """Brows, lashes and hair: part, prop and uniforms."""
        made_up = (0.85 if person.male < 0.5 else 0.45) * (1 - 0.55 * common["u_matte"])  # clay has few lashes
        strands = [  # part, prop, colour, contrast of the texture, shine, opacity, opacity from which it is solid
            (scene.brow, "brow", person.brow_color, 0.25, 0.1, 0.45 + 0.55 * person.brow.density, 2.0),
            (scene.lashes, "lashes", LASH, 0.2, 0.1, made_up, 2.0),
        ]
        if scene.hair is not None:
            strands.append((scene.hair, "hair", person.hair_color, 0.8, 1.0, 1.0, SOLID_STRAND))
        return [(part, name, {**common, "u_colour": color, "u_contrast": contrast, "u_shine": shine,
                              "u_opacity": opacity, "u_solid": solid})
                for part, name, color, contrast, shine, opacity, solid in strands]

    def _lay_strands(self, strands: list[tuple[Part, str, dict[str, Any]]]) -> None:
        """Depth alone of solid strands, first of all: what they hide, and hair behind hair, is then never shaded."""
        self._canvas.color_mask = (False,) * 4
        for part, name, uniforms in strands:
            cut = SOLID_STRAND / uniforms["u_opacity"]
            self._painter.draw("cut_out", name, part, {**uniforms, **self._painter.texture("strands"), "u_cut": cut})
        self._canvas.color_mask = (True,) * 4

    def _draw_strands(self, strands: list[tuple[Part, str, dict[str, Any]]], layer: int) -> None:
        """Layer 0: the solid strands that were laid. Layer 1: soft edges, blended over all that is drawn behind."""
        gl = self.gl
        self._canvas.depth_mask = False
        gl.depth_func = "<" if layer else "=="
        if layer:
            gl.enable(gl.BLEND)
            gl.blend_func = (gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA)
        for part, name, uniforms in strands:
            self._painter.draw("hair" + uniforms["form"], name, part, {
                **uniforms, **self._painter.texture("strands"), "u_pass": layer})
        gl.disable(gl.BLEND)
        gl.depth_func = "<="
        self._canvas.depth_mask = True

    def _draw_ink(self, scene: Scene, person: Person, style: Style) -> None:
        """Lines along the edges of the exact buffers, as large as the canvas is."""
        gl, large = self.gl, max(self._drawn.size)
        self._draw_exact(self._lines, scene, person)
        self._canvas.use()
        gl.enable_only(gl.BLEND)
        gl.blend_func = (gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ZERO, gl.ONE)
        self._lines.color_attachments[0].use(4)
        self._painter.draw_screen("ink", {"u_exact": 4, "u_width": style.ink / 2000 * large,
                                          "u_line": np.array(style.palette.line)})

    def _draw_labels(self, scene: Scene, person: Person) -> tuple[np.ndarray, np.ndarray]:
        self._draw_exact(self._exact, scene, person)
        label, depth = np.moveaxis(self._read_exact(2), -1, 0)
        parsing = (label * 255).round().astype(np.uint8)
        return parsing, np.where(parsing > 0, depth, np.float32(np.inf))

    def _draw_exact(self, target: Any, scene: Scene, person: Person) -> None:
        """Class, depth and normal (x, y) of what each pixel of a framebuffer sees; 0 on the backdrop."""
        target.use()
        target.clear(depth=1.0)
        self.gl.enable_only(self.gl.DEPTH_TEST)
        common = {"u_camera": scene.camera, **_garment(person), **_scalp(person)}
        for name, part, label, texture in _parts(scene, person):
            program = "label" if part is scene.body else "tag"
            self._painter.draw(program, name, part, {**common, "u_label": label, **self._painter.texture(texture)})

    def _read_exact(self, components: int) -> np.ndarray:
        values = np.frombuffer(self._exact.read(components=components, dtype="f4"), np.float32)
        return values.reshape(self.height, self.width, components)

    def _occlusion(self) -> np.ndarray:
        """Ambient occlusion of the average head [6357]: the cosine-weighted share of directions each vertex sees.

        The average head's mouth is shut; how much light reaches what is in an open one, the regions say.
        """
        rest, normals = self.sculptor.rest, self.sculptor.regions.rest_normals
        uv = np.zeros((len(rest), 2), np.float32)
        part = Part(rest.astype(np.float32), normals, rest, uv, self.kit.group("body"))
        seen, total = np.zeros(len(rest)), np.full(len(rest), 1e-6)
        golden = np.pi * (3 - np.sqrt(5))
        for i in range(OCCLUSION_DIRECTIONS):  # a spiral over the sphere
            y = 1 - 2 * (i + 0.5) / OCCLUSION_DIRECTIONS
            d = np.array([np.sqrt(1 - y * y) * np.cos(golden * i), y, np.sqrt(1 - y * y) * np.sin(golden * i)])
            matrix = _orthographic(d)
            self._shadow.use()
            self._shadow.clear(depth=1.0)
            self.gl.enable_only(self.gl.DEPTH_TEST)
            self._painter.draw("depth", "body", part, {"u_camera": matrix})
            depth = np.frombuffer(self._shadow_map.read(), np.float32).reshape(SHADOW_SIZE, SHADOW_SIZE)
            p = np.c_[rest + 0.04 * normals, np.ones(len(rest))] @ matrix.T * 0.5 + 0.5
            xy = np.clip((p[:, :2] * SHADOW_SIZE).astype(int), 0, SHADOW_SIZE - 1)
            weight = np.maximum(normals @ d, 0)
            seen += weight * (p[:, 2] < depth[xy[:, 1], xy[:, 0]] + 0.006)
            total += weight
        skin = np.clip(0.12 + 0.95 * seen / total, 0, 1)
        return np.where(self.sculptor.regions.on_body, skin, self.sculptor.regions.mouth_light).astype(np.float32)


def _parts(scene: Scene, person: Person) -> list[tuple[str, Part, int, str | None]]:
    """What hides what: name, part, class and texture of everything with a label."""
    left, right = scene.eyes
    parts = [
        ("body", scene.body, LABEL["skin"], None),
        ("l_eye", left.part, LABEL["l_eye"], None), ("r_eye", right.part, LABEL["r_eye"], None),
        ("teeth", scene.teeth, LABEL["mouth"], None), ("tongue", scene.tongue, LABEL["mouth"], None),
        ("brow", scene.brow, LABEL["brow"], "strands"),
    ]
    if scene.glasses is not None:
        parts.append(("glasses", scene.glasses, LABEL["glasses"], None))
    if scene.hair is not None:
        parts.append(("hair", scene.hair, LABEL["hair"], "strands"))
    return parts


def _destinations(scene: Scene, following: Scene) -> list[np.ndarray]:
    """Where the vertices of `_parts(scene, …)` are in the following scene; eyeballs turn with their gaze."""
    balls = [b.center + (a.part.positions - a.center) @ (b.axes @ a.axes.T).T
             for a, b in zip(scene.eyes, following.eyes, strict=True)]
    rest = [following.teeth, following.tongue, following.brow, following.glasses, following.hair]
    return [following.body.positions, *balls, *(part.positions for part in rest if part is not None)]


def _orthographic(direction: np.ndarray, center=(0.0, 6.6, 0.2), radius: float = 2.9) -> np.ndarray:
    """World → clip as seen from a far light."""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0, 1, 0], z)
    x /= np.linalg.norm(x) + 1e-9
    y = np.cross(z, x)
    m = np.eye(4)
    m[:3, :3] = np.stack([x, y, -z]) / radius
    m[:3, 3] = -m[:3, :3] @ np.array(center)
    return m


def _garment(person: Person) -> dict[str, float]:
    return {f"u_{name}": person.clothes[name] for name in ("neckline", "vneck", "vwidth", "jacket")}


def _scalp(person: Person) -> dict[str, Any]:
    """Uniforms of the scalp under the hair: its colour, and how much of the skin it covers."""
    length = 0.0 if person.hair is None else person.hair.length
    cover = 0.0 if person.hair is None else float(np.interp(length, [0, 0.04, 0.1], [0.55, 0.8, 1.0]))
    shade = float(np.interp(length, [0.04, 0.08, 0.2, 0.4], [1.0, 0.7, 0.8, 1.0]))  # lighter, it shows as dots
    return {"u_scalp": person.hair_color * shade, "u_cover": cover}


def _technique(style: Style) -> dict[str, Any]:
    """Uniforms that say how a style draws, and the form of the programs that does it."""
    form = "_hand" if max(style.matte, style.lumps, style.paint) > 0 else "_flat" if style.flat > 0 else ""
    return {"form": form, "u_toon": style.toon, "u_vivid": style.palette.vivid,
            "u_matte": style.matte, "u_lumps": style.lumps, "u_flat": style.flat, "u_tones": float(style.tones),
            "u_paint": style.paint, "u_shade": np.array(style.palette.shade)}
