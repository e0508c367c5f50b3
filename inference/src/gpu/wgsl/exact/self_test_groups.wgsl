// A workgroup's sums and maxima of what its threads have.

@group(0) @binding(0) var<storage, read> operands: array<u32>;
@group(0) @binding(1) var<storage, read_write> results: array<u32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let at = 2u * (group.x * $WGu + t);
    let sum = group_sum(t, vec2<u32>(operands[at], operands[at + 1u] & 0xffffffu));
    let most = group_max(t, operands[at]);
    // Every thread must know them.
    results[2u * at] = sum.x;
    results[2u * at + 1u] = sum.y;
    results[2u * at + 2u] = most;
    results[2u * at + 3u] = 0u;
}
