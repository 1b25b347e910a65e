"""Off-screen portraits with exact ground truth: OpenGL through EGL, so a software rasteriser on a server will do.

One `Studio` owns a context and draws `Scene`s: the picture (multisampled), and from the same geometry the 19-class
parsing map in BiSeNet's class order, 68 landmarks and depth. It does not choose people or styles.
"""
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..config import VToonifyError
from . import shaders
from .geometry import Part, Scene, Sculptor
from .kit import Kit
from .people import Person
from .styles import PHOTO, Style, restyle

LABEL = {"background": 0, "skin": 1, "brow": 2, "l_eye": 4, "r_eye": 5, "glasses": 6, "mouth": 11, "hair": 17}
_PART = ("3f 3f 3f 2f 4f 4f 4f", "in_position", "in_normal", "in_rest", "in_uv", "in_mask0", "in_mask1", "in_mask2")
SHADOW_SIZE = 512


@dataclass(frozen=True)
class Portrait:
    """image uint8 [S,S,3]; parsing uint8 [S,S] (19 classes, l_ = the subject's left); landmarks [68,2] pixels; depth [S,S] decimetres, inf = backdrop."""

    image: np.ndarray
    parsing: np.ndarray | None
    landmarks: np.ndarray
    depth: np.ndarray | None


class Studio:
    """`Studio(kit_folder, size=256).portrait(person, style) → Portrait`. Needs moderngl and EGL (Debian: libegl1 libgl1-mesa-dri)."""

    def __init__(self, kit: str | os.PathLike | Kit | None = None, size: int = 256, samples: int = 4):
        try:
            import moderngl

            self.gl = moderngl.create_context(standalone=True, backend="egl")
        except Exception as e:
            raise VToonifyError(f"no off-screen OpenGL ({e}); install moderngl and EGL (Debian: apt install libegl1 libgl1-mesa-dri)") from e
        self.kit = kit if isinstance(kit, Kit) else Kit(kit)
        self.sculptor = Sculptor(self.kit)
        self.size = size
        self._buffers: dict[str, tuple] = {}
        self._textures: dict[str, tuple] = {}
        self._programs = {n: self.gl.program(vertex_shader=shaders.VERTEX, fragment_shader=getattr(shaders, f"{n.upper()}_FRAGMENT"))
                          for n in ("depth", "skin", "eye", "hair", "plain", "label")}
        self._backdrop = self.gl.program(vertex_shader=shaders.SCREEN_VERTEX, fragment_shader=shaders.BACKDROP_FRAGMENT)
        corners = self.gl.buffer(np.array([-1, -1, 3, -1, -1, 3], "f4"))
        self._screen = self.gl.vertex_array(self._backdrop, [(corners, "2f", "in_corner")])
        self._canvas = self.gl.framebuffer([self.gl.renderbuffer((size, size), 4, samples=samples)], self.gl.depth_renderbuffer((size, size), samples=samples))
        self._picture = self.gl.simple_framebuffer((size, size), 4)
        self._labels = self.gl.framebuffer([self.gl.texture((size, size), 4, dtype="f4")], self.gl.depth_texture((size, size)))
        self._shadow_map = self.gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.compare_func = "<="
        self._shadow = self.gl.framebuffer([], self._shadow_map)
        grid = np.random.default_rng(7).integers(0, 256, (32, 32, 32)).astype(np.uint8)
        self._noise = self.gl.texture3d((32, 32, 32), 1, np.ascontiguousarray(grid))  # value noise: one random number a cell, blended linearly
        self._masks = self.sculptor.regions.masks.copy()
        self._masks[:, 7] = self._occlusion()

    # -- public ---------------------------------------------------------------------------------------------------
    def portrait(self, person: Person, style: Style = PHOTO, truth: bool = True) -> Portrait:
        """Draw one person in one style; with truth=False the parsing map and depth are skipped (and None)."""
        scene = self.sculptor.scene(restyle(person, style), style.warp)
        return self.draw(scene, restyle(person, style), style, truth)

    def draw(self, scene: Scene, person: Person, style: Style = PHOTO, truth: bool = True) -> Portrait:
        """Draw an already built scene (clips build theirs to measure motion)."""
        shadow = self._draw_shadow(scene, person)
        image = self._draw_picture(scene, person, style, shadow)
        parsing, depth = self._draw_labels(scene, person) if truth else (None, None)
        return Portrait(image, parsing, (scene.landmarks * self.size).astype(np.float32), depth)

    # -- passes ---------------------------------------------------------------------------------------------------
    def _draw_shadow(self, scene: Scene, person: Person) -> np.ndarray:
        matrix = _orthographic(person.light["key_dir"])
        self._shadow.use()
        self._shadow.clear(depth=1.0)
        self.gl.enable(self.gl.DEPTH_TEST)
        for name, part in (("body", scene.body), (person.hair, scene.hair)):
            if part is not None:
                self._render("depth", name, part, {"u_camera": matrix, **self._texture(name if name != "body" else None)})
        return matrix

    def _draw_picture(self, scene: Scene, person: Person, style: Style, shadow: np.ndarray) -> np.ndarray:
        gl, toon = self.gl, style.toon
        self._canvas.use()
        gl.disable(gl.DEPTH_TEST | gl.BLEND)
        self._noise.use(6)
        self._set(self._backdrop, {**{f"u_{k}": v for k, v in person.backdrop.items()}, "u_toon": toon, "u_noise": 6})
        self._canvas.clear(depth=1.0)
        self._screen.render()
        gl.enable(gl.DEPTH_TEST)
        self._shadow_map.use(7)
        light = {f"u_{k}": person.light[k] for k in ("key_dir", "key", "fill_dir", "fill", "sky", "ground", "rim")}
        common = {**light, "u_shadow_strength": person.light["shadow"], "u_shadow_map": 7, "u_noise": 6, "u_toon": toon, "u_camera": scene.camera, "u_shadow": shadow,
                  "u_eye": scene.viewpoint, **_garment(person)}
        s = person.skin
        gl.enable(gl.CULL_FACE)
        gl.front_face = "cw"  # picture rows run downwards, which turns every triangle over
        self._render("skin", "body", scene.body, {
            **common, "u_skin": s["tone"], "u_blush": s["blush"], "u_lip": s["lip"], "u_freckles": s["freckles"], "u_mottle": s["mottle"], "u_stubble": s["stubble"],
            "u_moustache": s["moustache"], "u_beard_colour": s["beard_color"], "u_wrinkles": s["wrinkles"], "u_lid": s["lid"], "u_gloss": s["gloss"],
            "u_cloth": person.clothes["color"], "u_shirt": person.clothes["shirt"], "u_tie": person.clothes["tie"], "u_stripes": person.clothes["stripes"]})
        for eye in scene.eyes:
            self._render("eye", "eye", eye.part, {**common, "u_centre": eye.center, "u_gaze": eye.gaze, "u_up": eye.up, "u_iris": person.iris, "u_iris2": person.iris2,
                                                  "u_iris_size": person.iris_size, "u_pupil": person.pupil, "u_sclera": np.array([0.80, 0.76, 0.74])})
        gl.disable(gl.CULL_FACE)
        self._render("plain", "teeth", scene.teeth, {**common, "u_shadow_strength": 0.25 * person.light["shadow"], "u_colour": np.array([0.74, 0.70, 0.62]), "u_shine": 0.05})
        self._render("plain", "tongue", scene.tongue, {**common, "u_colour": np.array([0.45, 0.13, 0.12]), "u_shine": 0.03})
        if scene.glasses is not None:
            self._render("plain", "glasses", scene.glasses, {**common, "u_colour": person.glasses["color"], "u_shine": 0.15})
        hairs = [("brow", person.brow, scene.brow, person.brow_color, 0.25, 0.9), ("lash", f"eyelashes/{person.lash}", scene.lashes, np.full(3, 0.012), 0.2, 0.85 if person.male < 0.5 else 0.45)]
        if scene.hair is not None:
            hairs.append(("hair", person.hair, scene.hair, person.hair_color, 0.9, 1.0))
        for layer in (0, 1):  # solid strands write depth; soft edges are blended over them
            if layer:
                gl.enable(gl.BLEND)
                self._canvas.depth_mask = False
            for _, name, part, color, contrast, opacity in hairs:
                self._render("hair", name, part, {**common, **self._texture(name), "u_colour": color, "u_contrast": contrast, "u_shine": 1.0 if name.startswith("hair") else 0.1,
                                                  "u_pass": layer, "u_opacity": opacity})
        gl.disable(gl.BLEND)
        self._canvas.depth_mask = True
        gl.copy_framebuffer(self._picture, self._canvas)
        return np.frombuffer(self._picture.read(components=3), np.uint8).reshape(self.size, self.size, 3).copy()

    def _draw_labels(self, scene: Scene, person: Person) -> tuple[np.ndarray, np.ndarray]:
        self._labels.use()
        self._labels.clear(depth=1.0)
        self.gl.enable(self.gl.DEPTH_TEST)
        parts = [("body", scene.body, LABEL["skin"], None), ("eye", scene.eyes[0].part, LABEL["l_eye"], None), ("eye", scene.eyes[1].part, LABEL["r_eye"], None),
                 ("teeth", scene.teeth, LABEL["mouth"], None), ("tongue", scene.tongue, LABEL["mouth"], None), (person.brow, scene.brow, LABEL["brow"], person.brow)]
        if scene.glasses is not None:
            parts.append(("glasses", scene.glasses, LABEL["glasses"], None))
        if scene.hair is not None:
            parts.append((person.hair, scene.hair, LABEL["hair"], person.hair))
        for name, part, label, texture in parts:
            self._render("label", name, part, {"u_camera": scene.camera, "u_label": label, "u_opacity": 1.0, **_garment(person), **self._texture(texture)})
        out = np.frombuffer(self._labels.read(components=2, dtype="f4"), np.float32).reshape(self.size, self.size, 2)
        parsing = (out[..., 0] * 255).round().astype(np.uint8)
        return parsing, np.where(parsing > 0, out[..., 1], np.inf)

    # -- plumbing -------------------------------------------------------------------------------------------------
    def _render(self, program: str, name: str, part: Part, uniforms: dict) -> None:
        self._set(self._programs[program], uniforms)
        self._upload(name, part)[program].render()

    def _upload(self, name: str, part: Part) -> dict:
        """Vertex arrays of a part, one per program; buffers are kept and rewritten only when the part changed."""
        entry = self._buffers.get(name)
        if entry is None or entry[0].size != len(part.positions) * 92:
            vertices = self.gl.buffer(reserve=len(part.positions) * 92)
            index = self.gl.buffer(np.ascontiguousarray(part.triangles, "i4"))
            arrays = {p: self.gl.vertex_array(prog, [(vertices, *_used(prog))], index, skip_errors=True) for p, prog in self._programs.items()}
            entry = self._buffers[name] = [vertices, index, arrays, None]
        if entry[3] is not part:
            masks = self._masks if len(part.positions) == len(self._masks) else np.tile(np.float32([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), (len(part.positions), 1))
            entry[0].write(np.concatenate([part.positions, part.normals, part.rest, part.uv, masks], 1).astype("f4").tobytes())
            if len(part.triangles) * 12 != entry[1].size or name in ("eye", "glasses"):
                entry[1].orphan(len(part.triangles) * 12)
                entry[1].write(np.ascontiguousarray(part.triangles, "i4"))
            entry[3] = part
        return entry[2]

    def _texture(self, name: str | None) -> dict:
        """Uniforms that bind a prop's texture; `u_mean` is the mean luminance of its opaque part, for tinting."""
        if name is None:
            return {"u_has_texture": 0.0}
        if name not in self._textures:
            path = self.kit.texture(name)
            texture, mean = None, 0.3
            if path is not None:
                pixels = np.asarray(Image.open(path).convert("RGBA").transpose(Image.Transpose.FLIP_TOP_BOTTOM))
                opaque = pixels[pixels[..., 3] > 128]
                mean = float((opaque[:, :3] @ [0.3, 0.59, 0.11]).mean() / 255)
                texture = self.gl.texture(pixels.shape[1::-1], 4, np.ascontiguousarray(pixels))
                texture.build_mipmaps()
            self._textures[name] = (texture, mean)
        texture, mean = self._textures[name]
        if texture is None:
            return {"u_has_texture": 0.0, "u_mean": mean}
        texture.use(1)
        return {"u_texture": 1, "u_has_texture": 1.0, "u_mean": mean}

    @staticmethod
    def _set(program, uniforms: dict) -> None:
        for name, value in uniforms.items():
            if name in program:
                if isinstance(value, np.ndarray):
                    matrix = value.shape == (4, 4) and name in ("u_camera", "u_shadow")
                    program[name].write((value.T if matrix else value).astype("f4").tobytes())
                else:
                    program[name].value = value

    def _occlusion(self, directions: int = 96) -> np.ndarray:
        """Ambient occlusion of the average head: the share of light directions that each vertex sees, cosine weighted."""
        rest, normals = self.sculptor.rest, self.sculptor.regions.rest_normals
        part = Part(rest.astype(np.float32), normals, rest, np.zeros((len(rest), 2), np.float32), self.kit.group("body"))
        seen, total = np.zeros(len(rest)), np.full(len(rest), 1e-6)
        golden = np.pi * (3 - np.sqrt(5))
        for i in range(directions):
            y = 1 - 2 * (i + 0.5) / directions
            d = np.array([np.sqrt(1 - y * y) * np.cos(golden * i), y, np.sqrt(1 - y * y) * np.sin(golden * i)])
            matrix = _orthographic(d)
            self._shadow.use()
            self._shadow.clear(depth=1.0)
            self.gl.enable(self.gl.DEPTH_TEST)
            self._render("depth", "body", part, {"u_camera": matrix, "u_has_texture": 0.0})
            depth = np.frombuffer(self._shadow_map.read(), np.float32).reshape(SHADOW_SIZE, SHADOW_SIZE)
            p = np.c_[rest + 0.04 * normals, np.ones(len(rest))] @ matrix.T * 0.5 + 0.5
            xy = np.clip((p[:, :2] * SHADOW_SIZE).astype(int), 0, SHADOW_SIZE - 1)
            weight = np.maximum(normals @ d, 0)
            seen += weight * (p[:, 2] < depth[xy[:, 1], xy[:, 0]] + 0.006)
            total += weight
        return np.clip(0.12 + 0.95 * seen / total, 0, 1).astype(np.float32)


def _used(program) -> list[str]:
    """Buffer layout for a program: attributes it does not read become padding."""
    widths = dict(zip(_PART[1:], (3, 3, 3, 2, 4, 4, 4), strict=True))
    layout = " ".join(f"{w}f" if n in program else f"{w}x4" for n, w in widths.items())
    return [layout, *[n for n in widths if n in program]]


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
    c = person.clothes
    return {"u_neckline": c["neckline"], "u_vneck": c["vneck"], "u_vwidth": c["vwidth"], "u_jacket": c["jacket"]}
