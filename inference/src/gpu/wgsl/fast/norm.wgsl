// Adds a branch to the states of a row and norms them. One workgroup a row; each thread keeps to its own words
// of four values, so only the sums meet, in the order of a product that norms a step's only row by itself.

const WORDS: u32 = $Nu / 4u;
@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read_write> states: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> normed: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> post_weights: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = $ROW;
    let at = row * WORDS;
    $ADD
    var wrong = 0u;
    var squares = 0.0;
    for (var word = t; word < WORDS; word += $WGu) {
        let value = states[at + word];
        squares += dot(value, value);
        wrong = worse(wrong, value);
    }
    let r = inverse_rms(t, squares, $Nu);
    for (var word = t; word < WORDS; word += $WGu) {
        let value = states[at + word] * r * weights[word];
        normed[group.x * WORDS + word] = value;
        wrong = worse(wrong, value);
    }
    if wrong >= NOT_FINITE {
        atomicMin(&status[row], stage.x);
    }
}
