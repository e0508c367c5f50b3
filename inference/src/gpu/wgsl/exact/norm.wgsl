// Adds a branch to the states of a row, norms them (rule 5) and writes them in Q16 (rule 2).
// One workgroup a row; each thread keeps to its own groups of 16 values, so only the sums meet.

const N: u32 = $Nu;
@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read_write> states: array<u32>;
@group(0) @binding(3) var<storage, read_write> normed: array<u32>;
@group(0) @binding(4) var<storage, read_write> quantized: array<u32>;
@group(0) @binding(5) var<storage, read> weights: array<u32>;
@group(0) @binding(6) var<storage, read> branch: array<u32>;
@group(0) @binding(7) var<storage, read> post_weights: array<u32>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = $ROW;
    let at = row * N;
    $ADD
    var most = 0u;
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            most = max(most, states[at + i] & MAGNITUDE);
        }
    }
    most = group_max(t, most);
    let exponent = q16_exponent(most);
    var squares = vec2<u32>(0u);
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            squares = add64(squares, square(rnd(states[at + i], exponent)));
        }
    }
    let r = inverse_rms(group_sum(t, squares), exponent, $N, $EPSu);
    var most_normed = 0u;
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            let value = f_mul(f_mul(states[at + i], r), weights[i]);
            normed[at + i] = value;
            most_normed = max(most_normed, value & MAGNITUDE);
        }
    }
    most_normed = group_max(t, most_normed);
    if t == 0u && max(most, most_normed) >= NOT_FINITE {
        atomicMin(&status[row], stage.x);
    }
    let q_exponent = q16_exponent(most_normed);
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        write_q16(group.x, unit, at, q_exponent);
    }
}
