// Writes a row's vector in Q16 (rule 2). One workgroup a row.

const N: u32 = $Nu;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
@group(0) @binding(3) var<storage, read_write> quantized: array<u32>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = group.x;
    let at = row * N;
    var most = 0u;
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            most = max(most, values[at + i] & MAGNITUDE);
        }
    }
    most = group_max(t, most);
    if t == 0u && most >= NOT_FINITE {
        atomicMin(&status[row], stage.x);
    }
    let exponent = q16_exponent(most);
    for (var unit = t; unit < N / 16u; unit += $WGu) {
        write_q16(row, unit, at, exponent);
    }
}
