"""GLSL of the drawing techniques: clay, flat tones and paint (inside `shade`), and ink (a pass of its own).

The first three are compiled in where `DRAWN` is defined (clay and paint where `HAND` is, too), so that other pictures
do not pay for them. All are anchored to the surface or to exact edges of the geometry: nothing swims as the face moves.
"""

HAND = """
#ifdef DRAWN
uniform float u_matte; uniform float u_lumps; uniform float u_flat; uniform float u_tones; uniform float u_paint;
uniform vec3 u_shade;
float luminance(vec3 c) { return dot(c, vec3(0.3, 0.59, 0.11)); }
#ifdef HAND
// strokes of a brush that follow the form: noise stretched across the face, more so on cloth and hair
vec4 strokes() {
    vec3 q = v_rest + 0.10 * v_rest.yzx;
    return noise(q * vec3(7.0, 26.0, 7.0) + 3.0) - 0.5;
}
// what the hand leaves on a surface: thumb marks in clay, strokes of paint
void handle(inout vec3 albedo, inout vec3 n, inout vec3 wrap, inout float gloss, inout float spec, inout float ao,
            vec4 stroke) {
    vec4 thumb = noise(v_rest * 5.0 + 11.0) - 0.5, grit = noise(v_rest * 30.0) - 0.5;
    n = normalize(n + u_lumps * (0.9 * thumb.rgb + 0.14 * grit.rgb) + 0.25 * u_paint * stroke.rgb);
    albedo *= 1.0 + u_lumps * (0.07 * thumb.a + 0.05 * grit.a) + 0.20 * u_paint * stroke.a;
    wrap = mix(wrap, vec3(0.30, 0.25, 0.23), u_matte);
    gloss = mix(gloss, 6.0, u_matte);
    spec = mix(spec, 0.05 + 0.25 * luminance(albedo), u_matte) * (1.0 - u_flat);
    ao = mix(ao, 0.25 + 0.75 * ao * ao, u_matte);
}
#endif
// light in steps; a shadow is a colour of its own, not less light
vec3 flatten(vec3 colour, vec3 albedo, vec3 light, float stroke) {
    vec3 white = u_key + 0.4 * u_fill + 0.6 * u_sky + 0.2 * u_ground;
    float x = luminance(light) / luminance(white) * 1.25 - 0.12 + 0.22 * u_paint * stroke;
    x = clamp(x, 0.0, 0.999) * u_tones;
    float w = 0.04 + 0.16 * u_paint + fwidth(x);
    float level = clamp((floor(x) + smoothstep(0.5 - w, 0.5 + w, fract(x))) / u_tones, 0.0, 1.0);
    vec3 tone = mix(0.40 * u_shade, vec3(1.04), level);
    return mix(colour, albedo * white * 0.95 * tone, u_flat);
}
#endif
"""

INK_FRAGMENT = """
#version 330
uniform sampler2D u_exact;  // class, depth, normal x and y, of every pixel
uniform float u_width;  // half of a line's width in pixels of this picture
uniform vec3 u_line;
out vec4 f_colour;
const vec2 RING[8] = vec2[](vec2(1, 0), vec2(0.71, 0.71), vec2(0, 1), vec2(-0.71, 0.71),
                            vec2(-1, 0), vec2(-0.71, -0.71), vec2(0, -1), vec2(0.71, -0.71));
vec4 look(vec2 offset) {
    return texelFetch(u_exact, clamp(ivec2(gl_FragCoord.xy + offset), ivec2(0), textureSize(u_exact, 0) - 1), 0);
}
// what a line may part: 0 backdrop, 1 skin, 2 and 3 lips, 4 mouth, 5 eyes, 6 spectacles, 7 cloth, 8 hair
float kind(float tag) {
    float l = floor(tag * 255.0 + 0.5);
    if (l > 16.5) return 8.0;
    if (l > 15.5) return 7.0;
    if (l > 13.5) return 1.0;
    if (l > 10.5) return l - 10.0 > 2.5 ? 3.0 : (l - 10.0 > 1.5 ? 2.0 : 4.0);
    if (l > 6.5) return 1.0;
    if (l > 3.5) return l > 5.5 ? 6.0 : 5.0;
    return min(l, 1.0);
}
float parted(float a, float b) {
    if (a == b) return 0.0;
    return min(a, b) == 1.0 && (max(a, b) == 2.0 || max(a, b) == 3.0) ? 0.35 : 1.0;
}
void main() {
    vec4 here = look(vec2(0));
    if (here.x == 0.0) discard;  // lines lie inside of what they surround: the backdrop stays as it is
    float me = kind(here.x), r = max(u_width, 1.0), sum = 0.0, crease = 0.0;
    for (int i = 0; i < 4; i++) {
        vec4 a = look(r * RING[i]), b = look(r * RING[i + 4]);
        float ka = kind(a.x), kb = kind(b.x);
        sum += (ka > 0.0 ? parted(me, ka) : 0.0) + (kb > 0.0 ? parted(me, kb) : 0.0);
        if (ka == me && kb == me) {  // folds: depth leaps, or the surface turns
            float leap = abs(a.y + b.y - 2.0 * here.y) / r;
            float turn = 1.0 - dot(a.zw, b.zw) - sqrt(max(0.0, (1.0 - dot(a.zw, a.zw)) * (1.0 - dot(b.zw, b.zw))));
            float fold = smoothstep(0.03, 0.08, leap) * (me == 8.0 ? 0.5 : 1.0);
            if (me == 1.0) fold = max(fold, 0.7 * smoothstep(0.16, 0.45, turn / r));
            crease = max(crease, fold);
        }
        sum += look(2.2 * r * RING[2 * i]).x == 0.0 ? 1.0 : 0.0;
    }
    float cover = max(clamp(0.5 * sum, 0.0, 1.0), crease) * min(1.0, u_width);
    f_colour = vec4(u_line, cover);
}
"""
