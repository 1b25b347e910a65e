"""GLSL of the portrait studio: skin, eyes, hair cards, cloth, backdrop, and the exact label and flow passes.

One lighting function serves every surface. `u_toon` runs from 0 (photo) to 1 (storybook): softer light, smoother and
more saturated colour, no blemishes. Noise is anchored to rest coordinates, so it stays on the face as the face moves.

A software rasteriser runs both sides of every branch, and a shader for sixteen pixels where a small triangle covers
two. Hence one `shade` a shader, few taps of textures, slow noise a vertex at a time, and programs without textures. It
rejects hidden pixels before they are shaded only where there is one sample a pixel: no multisampling, but a picture
drawn larger, on nothing, which the backdrop's pass averages and puts before the backdrop.
"""

from .techniques import HAND

VERTEX = """
#version 330
in vec3 in_position; in vec3 in_normal; in vec3 in_rest; in vec2 in_uv;
in vec4 in_mask0; in vec4 in_mask1; in vec4 in_mask2;
uniform mat4 u_camera; uniform mat4 u_shadow; uniform sampler3D u_noise;
out vec3 v_position; out vec3 v_normal; out vec3 v_rest; out vec2 v_uv; out vec3 v_shadow; out vec2 v_slow;
out vec4 v_mask0; out vec4 v_mask1; out vec4 v_mask2;
invariant gl_Position;  // passes that compare depths must agree on them
void main() {
    gl_Position = u_camera * vec4(in_position, 1.0);
    v_position = in_position; v_normal = in_normal; v_rest = in_rest; v_uv = in_uv;
    v_mask0 = in_mask0; v_mask1 = in_mask1; v_mask2 = in_mask2;
    v_shadow = (u_shadow * vec4(in_position + 0.03 * in_normal, 1.0)).xyz * 0.5 + 0.5;
    v_slow = vec2(textureLod(u_noise, in_rest * 3.0 / 32.0, 0.0).r, textureLod(u_noise, in_rest * 11.0 / 32.0, 0.0).r);
}
"""

DEPTH_FRAGMENT = """
#version 330
void main() {}
"""

CUT_OUT_FRAGMENT = """
#version 330
in vec2 v_uv; uniform sampler2D u_texture; uniform float u_cut;
void main() { if (texture(u_texture, v_uv).a < u_cut) discard; }
"""

_COMMON = """
#version 330
in vec3 v_position; in vec3 v_normal; in vec3 v_rest; in vec2 v_uv; in vec3 v_shadow; in vec2 v_slow;
// 0: upper lip, lower lip, cheek, nose   1: ear, neck, mouth cavity, occlusion   2: beard, moustache, eyelid, hairline;
// of strands, 2 is their direction, and how light they are
in vec4 v_mask0; in vec4 v_mask1; in vec4 v_mask2; uniform float u_cover;
uniform vec3 u_eye; uniform vec3 u_key_dir; uniform vec3 u_key; uniform vec3 u_fill_dir;
uniform vec3 u_fill; uniform vec3 u_sky; uniform vec3 u_ground; uniform vec3 u_rim;
uniform float u_toon; uniform float u_shadow_strength; uniform sampler2DShadow u_shadow_map;
uniform float u_neckline; uniform float u_vneck; uniform float u_vwidth; uniform float u_jacket;
uniform sampler3D u_noise; uniform float u_vivid;
vec4 noise(vec3 x) { return textureLod(u_noise, x / 32.0, 0.0); }  // four at once
float lit(vec2 offset) { return textureLod(u_shadow_map, v_shadow + vec3(offset, -0.004), 0.0); }
float shadow() {
    float r = mix(0.006, 0.012, u_toon);  // each tap is itself a blend of four comparisons
    float s = lit(r * vec2(0.0, 0.95)) + lit(r * vec2(0.82, -0.47)) + lit(r * vec2(-0.82, -0.47));
    return mix(1.0, s / 3.0, u_shadow_strength);
}
""" + HAND + """
// wrap: how far light bleeds past the terminator, per colour channel (skin lets red through)
vec3 shade(vec3 albedo, vec3 n, vec3 wrap, float gloss, float spec, float ao, float visible) {
    vec4 stroke = vec4(0.0);
#ifdef HAND
    stroke = strokes();
    handle(albedo, n, wrap, gloss, spec, ao, stroke);
#endif
    vec3 view = normalize(u_eye - v_position);
    vec3 key = clamp((dot(n, u_key_dir) + wrap) / (1.0 + wrap), 0.0, 1.0);
    key *= mix(vec3(visible), vec3(1.0), wrap * 0.35);
    vec3 fill = clamp((dot(n, u_fill_dir) + wrap) / (1.0 + wrap), 0.0, 1.0);
    vec3 ambient = mix(u_ground, u_sky, 0.5 + 0.5 * n.y) * ao;
    vec3 light = u_key * key + u_fill * fill * (0.4 + 0.6 * ao) + ambient, colour = albedo * light;
    vec3 h = normalize(u_key_dir + view), hf = normalize(u_fill_dir + view);
    float fresnel = 0.35 + 0.65 * pow(1.0 - clamp(dot(view, h), 0.0, 1.0), 4.0);
    colour += spec * fresnel * (u_key * visible * pow(max(dot(n, h), 0.0), gloss)
                                + 0.5 * u_fill * pow(max(dot(n, hf), 0.0), gloss)) * (gloss + 8.0) / 30.0;
    float edge = pow(1.0 - clamp(dot(n, view), 0.0, 1.0), 3.0);
    colour += u_rim * edge * ao * (0.35 + 0.65 * albedo);
#ifdef DRAWN
    colour = flatten(colour, albedo, light, stroke.b);
#endif
    return colour;
}
vec3 finish(vec3 c) {
    c *= 1.12; c = c * (1.0 + c * 0.18) / (1.0 + 0.42 * c);
    vec3 s = min(c, 1.0);  // beyond 1 the curve falls
    c = mix(c, s * s * (3.0 - 2.0 * s), 0.25);
    c = pow(max(c, 0.0), vec3(1.0 / 2.2));
    float grey = dot(c, vec3(0.3, 0.59, 0.11));
    return clamp(mix(vec3(grey), c, u_vivid), 0.0, 1.0);
}
// 0 = skin, 1 = cloth, 2 = shirt under a jacket, 3 = tie
float garment() {
    float front = smoothstep(-0.2, 0.4, v_rest.z);
    float v = u_vneck * max(0.0, 1.0 - abs(v_rest.x) / u_vwidth) * front;
    float top = u_neckline + 0.32 * smoothstep(0.2, 1.1, abs(v_rest.x)) - 0.10 * smoothstep(1.0, 1.6, abs(v_rest.x))
                + 0.35 * (1.0 - front);
    if (v_rest.y > top - (u_jacket > 0.5 ? 0.0 : v)) return 0.0;
    if (u_jacket < 0.5) return 1.0;
    float opening = max(0.0, 1.0 - abs(v_rest.x) / (0.62 * u_vwidth)) * 1.9 * front;
    bool tie = u_jacket > 1.5 && abs(v_rest.x) < 0.10 + 0.05 * (top - v_rest.y) && v_rest.z > 0.0;
    if (v_rest.y > top - opening) return tie ? 3.0 : 2.0;
    return 1.0;
}
"""

SKIN_FRAGMENT = _COMMON + """
uniform vec3 u_skin; uniform vec3 u_blush; uniform vec3 u_lip; uniform vec3 u_lid; uniform vec3 u_beard_colour;
uniform float u_freckles; uniform float u_mottle; uniform float u_stubble; uniform float u_moustache;
uniform float u_wrinkles; uniform float u_gloss; uniform vec3 u_scalp;
uniform vec3 u_cloth; uniform vec3 u_shirt; uniform vec3 u_tie; uniform float u_stripes;
out vec4 f_colour;
void main() {
    vec3 n = normalize(v_normal);
    float ao = mix(v_mask1.w, 1.0, 0.15 * u_toon), real = 1.0 - u_toon, g = garment();
    bool cloth = g > 0.5, cavity = v_mask1.z > 0.5;
    float low = v_slow.x, mid = v_slow.y;
    vec3 high = noise(v_rest * 45.0).rgb;
    float fine = noise(v_rest * (cloth ? vec3(40, 90, 40) : vec3(75, 38, 75))).r;  // weave of cloth, beards

    float lip = smoothstep(0.15, 0.75, clamp(max(v_mask0.x, v_mask0.y) * 1.9 - 0.35, 0.0, 1.0));
    float rosy = 0.85 * v_mask0.z + 0.75 * v_mask0.w * (0.4 + 0.6 * real) + 0.5 * v_mask1.x;
    vec3 c = u_skin * mix(vec3(1.0), u_blush, clamp(rosy, 0.0, 1.0));
    c *= 1.0 + real * u_mottle * vec3(0.16, 0.24, 0.26) * ((low - 0.5) + 0.8 * (mid - 0.5) + 0.6 * (high.x - 0.5));
    float spots = smoothstep(0.74, 0.80, high.b) * smoothstep(0.1, 0.5, v_mask0.z + v_mask0.w);
    c *= mix(vec3(1.0), vec3(0.72, 0.58, 0.45), u_freckles * spots * (0.35 + 0.65 * real));
    float fore = smoothstep(7.55, 7.75, v_rest.y) * (1.0 - smoothstep(8.0, 8.15, v_rest.y));
    fore *= smoothstep(0.9, 1.3, v_rest.z);
    float line = smoothstep(0.72, 1.0, sin((v_rest.y + 0.03 * low + 0.02 * cos(v_rest.x * 4.0)) * 62.0)) * fore;
    c *= 1.0 - 0.13 * u_wrinkles * (real + 0.25 * u_toon) * line;
    c *= mix(vec3(1.0), u_lid, v_mask2.z);
    float grain = 0.65 + 0.7 * mix(fine, 0.5, 0.6 * u_toon);
    float hairy = clamp(u_stubble * v_mask2.x, 0.0, 0.92) * grain;
    float upper = clamp(u_moustache * v_mask2.y, 0.0, 0.95) * grain;
    c = mix(c, u_lip * (1.0 + 0.14 * real * (high.x - 0.5)), lip);
    c = mix(c, u_beard_colour, clamp(max(hairy, upper), 0.0, 0.95) * (1.0 - lip));
    float scalp = u_cover * smoothstep(-0.03, 0.09, v_mask2.w + 0.10 * (fine - 0.5) + 0.05 * (high.y - 0.5));
    c = mix(c, u_scalp * (0.65 + 0.3 * grain), scalp);
    vec3 bumps = vec3(high.xy - 0.5, mid - 0.5);
    vec3 rough = normalize(n + real * (0.10 * u_mottle * bumps - vec3(0, 0.05, 0) * u_wrinkles * line));
    float spec = mix(0.035, 0.10, lip) * u_gloss * mix(1.0, 0.75, u_toon), gloss = mix(18.0, 40.0, lip);
    vec3 wrap = mix(vec3(0.30, 0.14, 0.09), vec3(0.55, 0.40, 0.34), u_toon);

    vec3 dress = g > 2.5 ? u_tie : (g > 1.5 ? u_shirt : u_cloth);
    dress *= 0.9 + 0.2 * mix(fine, 0.5, u_toon);
    float across = u_stripes > 0.0 ? v_rest.y : v_rest.x;
    if (g < 1.5) dress *= 1.0 - 0.45 * abs(u_stripes) * step(0.5, fract(across * 3.5));
    if (g > 2.5) dress *= 0.8 + 0.4 * step(0.6, fract((v_rest.y + v_rest.x) * 6.0));

    if (cloth) {
        c = dress; wrap = vec3(0.15); gloss = 8.0; spec = 0.01;
    } else if (cavity) {  // inside of the mouth
        c = vec3(0.25, 0.06, 0.05); wrap = vec3(0.2); gloss = 20.0; spec = 0.05; ao *= 0.35;
    } else {
        n = rough;
    }
    f_colour = vec4(finish(shade(c, n, wrap, gloss, spec, ao, shadow())), 1.0);
}
"""

EYE_FRAGMENT = _COMMON + """
uniform vec3 u_centre; uniform vec3 u_gaze; uniform vec3 u_up;
uniform vec3 u_iris; uniform vec3 u_iris2; uniform vec3 u_sclera; uniform float u_iris_size; uniform float u_pupil;
out vec4 f_colour;
void main() {
    vec3 d = normalize(v_position - u_centre);
    vec3 side = normalize(cross(u_up, u_gaze)), up = cross(u_gaze, side);
    vec2 p = vec2(dot(d, side), dot(d, up)) / u_iris_size;
    float r = dot(d, u_gaze) > 0.0 ? length(p) : 9.0, a = atan(p.y, p.x);
    float streak = noise(vec3(cos(a) * 5.0, sin(a) * 5.0, r * 1.5)).r * 0.6
                   + noise(vec3(cos(a) * 13.0, sin(a) * 13.0, r * 3.0)).r * 0.4;
    vec3 iris = mix(u_iris2, u_iris, smoothstep(0.30, 0.85, r + 0.25 * (streak - 0.5)));
    iris *= mix(0.6 + 0.8 * streak, 1.05 - 0.35 * clamp(p.y, -1.0, 1.0), 0.75 * u_toon);
    iris *= 1.0 - 0.65 * smoothstep(0.78, 1.0, r);
    float aa = fwidth(r) * 0.7 + 0.03;
    iris = mix(vec3(0.012), iris, smoothstep(u_pupil - aa, u_pupil + aa, r));
    float in_iris = 1.0 - smoothstep(1.0 - aa, 1.0 + aa, r);
    vec3 white = u_sclera * (1.0 - 0.15 * (1.0 - u_toon) * smoothstep(1.5, 3.2, r) * vec3(0.2, 1.0, 1.0));
    vec3 albedo = mix(white, iris, in_iris);
    vec3 n = normalize(d);
    float lidshade = smoothstep(-0.1, 0.55, dot(d, u_up) / 0.62);
    float ao = 1.0 - mix(0.55, 0.40, u_toon) * lidshade;
    vec3 view = normalize(u_eye - v_position);
    vec3 c = shade(albedo, n, vec3(0.35), 60.0, 0.02, ao * 0.85, shadow()) * mix(1.0, ao, 0.6);
    vec3 h = normalize(u_key_dir + view), cornea = normalize(d + 0.10 * vec3(p, 0.0) * in_iris);
    float glint = smoothstep(0.965, 0.985, dot(cornea, normalize(h + 0.08 * u_up)));
    c += u_key * glint * mix(0.45, 0.9, u_toon);
    f_colour = vec4(finish(c), 1.0);
}
"""

HAIR_FRAGMENT = _COMMON.replace("#version 330", "#version 420") + """
layout(early_fragment_tests) in;  // strands are in the depth buffer already: no shading of what it hides
uniform sampler2D u_texture; uniform vec3 u_colour; uniform float u_contrast; uniform float u_mean;
uniform float u_shine; uniform float u_opacity; uniform float u_solid; uniform int u_pass;
out vec4 f_colour;
void main() {
    vec4 t = texture(u_texture, v_uv);
#ifdef DRAWN  // strands run together
    t.rgb = mix(t.rgb, texture(u_texture, v_uv, 4.0).rgb, max(u_matte, 0.85 * u_flat));
#endif
    float a = t.a * u_opacity;
    if (u_pass == 0 ? a < u_solid : (a >= u_solid || a < 0.04)) discard;
    vec3 view = normalize(u_eye - v_position);
    vec3 n = normalize(v_normal); if (dot(n, view) < 0.0) n = -n;
    float lum = dot(t.rgb, vec3(0.3, 0.59, 0.11)) / u_mean;
    float strand = pow(clamp(lum, 0.05, 2.6), u_contrast);
    strand = mix(strand, 0.5 + 0.5 * strand, 0.7 * u_toon);
    float tone = v_mask2.w;
    vec3 c = u_colour * strand * tone;
    // two lobes about the hair (Kajiya and Kay 1989, shifted as Marschner et al. 2003 found): light off the surface,
    // and, towards the tips, light that has been inside and takes the hair's colour
    vec3 along = normalize(v_mask2.xyz + 1e-4), half_way = normalize(u_key_dir + view);
    float shift = 0.10 * (lum - 1.0);
    float first = dot(normalize(along - (0.06 - shift) * n), half_way);
    float second = dot(normalize(along + (0.14 + shift) * n), half_way);
    vec2 lobe = sqrt(max(1.0 - vec2(first * first, second * second), 0.0));
    lobe = pow(lobe, mix(vec2(90.0, 18.0), vec2(40.0, 14.0), u_toon));
    lobe *= clamp(dot(n, u_key_dir) * 0.8 + 0.35, 0.0, 1.0);
#ifdef DRAWN
    lobe = mix(lobe, smoothstep(0.40, 0.46, lobe), u_flat) * (1.0 - 0.75 * u_matte);
#endif
    float visible = shadow();
    vec3 spec = (0.035 + 0.12 * u_colour) * lobe.x + 0.55 * u_colour * lobe.y;
    vec3 lit = shade(c, n, vec3(0.35), 12.0, 0.005, mix(0.8, 0.9, u_toon) * tone, visible)
               + u_shine * spec * visible * u_key * strand * tone;
    f_colour = vec4(finish(lit), u_pass == 0 ? 1.0 : a);
}
"""

PLAIN_FRAGMENT = _COMMON + """
uniform vec3 u_colour; uniform float u_shine;
out vec4 f_colour;
void main() {
    vec3 n = normalize(v_normal);
    if (dot(n, u_eye - v_position) < 0.0) n = -n;
    // share of all light: what hides a tooth from the sky hides it from the lamps, and what comes back is red
    vec3 open = pow(vec3(v_mask1.w), vec3(0.85, 1.1, 1.15));
    f_colour = vec4(finish(open * shade(u_colour, n, vec3(0.3), 30.0, u_shine, 1.0, shadow())), 1.0);
}
"""

_STRANDS = """
const float SOLID = 0.4;  // alpha from which a strand hides what lies behind it
"""

LABEL_FRAGMENT = _COMMON + """
out vec4 f_colour;
void main() {  // the base mesh: skin and what is marked on it
    float lip_u = v_mask0.x * 1.9 - 0.35, lip_l = v_mask0.y * 1.9 - 0.35, label = 1.0;
    if (garment() > 0.5) label = 16.0;
    else if (v_mask2.w > 0.03 && u_cover > 0.3) label = 17.0;
    else if (v_mask1.z > 0.5) label = 11.0;
    else if (max(lip_u, lip_l) > 0.42) label = lip_u > lip_l ? 12.0 : 13.0;
    else if (v_mask1.x > 0.35) label = v_rest.x > 0.0 ? 7.0 : 8.0;
    else if (v_mask0.w > 0.30) label = 10.0;
    else if (v_mask1.y > 0.5) label = 14.0;
    f_colour = vec4(label / 255.0, 1.0 / gl_FragCoord.w, normalize(v_normal).xy);
}
"""

TAG_FRAGMENT = """
#version 330
in vec3 v_normal; in vec3 v_rest; in vec2 v_uv;
uniform int u_label; uniform sampler2D u_texture;
out vec4 f_colour;
""" + _STRANDS + """
void main() {  // a part of one class; brows are two
    if (texture(u_texture, v_uv).a < SOLID) discard;
    float label = u_label == 2 ? (v_rest.x > 0.0 ? 2.0 : 3.0) : float(u_label);
    f_colour = vec4(label / 255.0, 1.0 / gl_FragCoord.w, normalize(v_normal).xy);
}
"""

FLOW_VERTEX = """
#version 330
in vec3 in_position; in vec3 in_next; in vec2 in_uv;
uniform mat4 u_camera; uniform mat4 u_next_camera;
out vec2 v_uv; out vec4 v_next;
void main() {
    gl_Position = u_camera * vec4(in_position, 1.0);
    v_next = u_next_camera * vec4(in_next, 1.0);
    v_uv = in_uv;
}
"""

FLOW_FRAGMENT = """
#version 330
in vec2 v_uv; in vec4 v_next; uniform sampler2D u_texture;
out vec4 f_colour;
""" + _STRANDS + """
void main() {  // where the surface seen here is in the next frame, and how far from the camera
    if (texture(u_texture, v_uv).a < SOLID) discard;
    f_colour = vec4(v_next.xy / v_next.w, v_next.w, 1.0);
}
"""

SCREEN_VERTEX = """
#version 330
in vec2 in_corner; out vec2 v_xy; uniform vec2 u_aspect;
void main() { v_xy = in_corner * u_aspect; gl_Position = vec4(in_corner, 0.9999, 1.0); }
"""

BACKDROP_FRAGMENT = """
#version 330
in vec2 v_xy;
uniform vec3 u_top; uniform vec3 u_bottom; uniform vec2 u_tilt; uniform vec4 u_blob[10]; uniform vec4 u_paint[10];
uniform vec4 u_wall; uniform vec3 u_cloud; uniform vec3 u_stripe; uniform float u_grain;
uniform sampler3D u_noise; uniform sampler2D u_drawn; uniform vec2 u_size;
out vec4 f_colour;
float hash(vec2 p) { return fract(sin(dot(p, vec2(12.9898, 78.233))) * 43758.5453); }
void main() {
    vec2 p = v_xy;
    vec3 c = mix(u_bottom, u_top, smoothstep(-1.2, 1.2, dot(p, u_tilt)));
    float wall = p.x * u_wall.w + p.y * (1.0 - abs(u_wall.w));
    c *= 1.0 - u_wall.x * smoothstep(u_wall.y - 0.02 - 0.3 * u_wall.z, u_wall.y + 0.02 + 0.3 * u_wall.z, wall);
    vec2 s = vec2(cos(u_stripe.z) * p.x - sin(u_stripe.z) * p.y, 0.7 * p.y);  // bars: blinds, shelves, window frames
    c *= 1.0 - u_stripe.x * smoothstep(0.35, 0.45, abs(fract(s.x * u_stripe.y * 0.5) - 0.5));
    for (int k = 0; k < 3; k++) {  // cloud: strength, frequency, roughness: foliage, plaster, crowds
        vec3 q = vec3(p * u_cloud.y * exp2(float(k)) / 32.0, u_stripe.z + float(k) * 0.37);
        float weight = u_cloud.x * pow(u_cloud.z, float(k));
        vec4 tint = textureLod(u_noise, q, 0.0);
        c += weight * (tint.rgb * 0.5 + tint.a * 0.5 - 0.5);
    }
    for (int i = 0; i < 10; i++) {  // blob: x, y, size (negative = off), softness; paint: rgb, square (1) or round (0)
        vec2 d = (p - u_blob[i].xy) / max(u_blob[i].z, 1e-3);
        float r = mix(length(d), max(abs(d.x), abs(d.y) * 0.6), step(0.5, u_paint[i].w));
        float inside = 1.0 - smoothstep(1.0 - u_blob[i].w, 1.0 + u_blob[i].w, r);
        if (u_blob[i].z > 0.0) c = mix(c, u_paint[i].rgb, 0.8 * inside);
    }
    c *= 1.0 - 0.10 * dot(p, p) * 0.5;
    c += u_grain * (hash(floor(gl_FragCoord.xy / 2.0)) - 0.5);
    // the person, drawn twice as large, their colours multiplied by their opacity: one tap is the mean of four pixels
    vec4 drawn = textureLod(u_drawn, gl_FragCoord.xy / u_size, 0.0);
    f_colour = vec4(drawn.rgb + (1.0 - drawn.a) * clamp(c, 0.0, 1.0), 1.0);
}
"""
