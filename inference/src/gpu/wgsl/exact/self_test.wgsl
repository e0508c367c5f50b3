// Each operation on each pair of operands.

@group(0) @binding(0) var<storage, read> operands: array<u32>;
@group(0) @binding(1) var<storage, read_write> results: array<u32>;

$WIDE

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let a = operands[2u * id.x];
    let b = operands[2u * id.x + 1u];
    let at = $OPERATIONSu * id.x;
    results[at] = f_add(a, b);
    results[at + 1u] = f_sub(a, b);
    results[at + 2u] = f_mul(a, b);
    results[at + 3u] = f_div(a, b);
    results[at + 4u] = f_sqrt(a & MAGNITUDE);
    results[at + 5u] = f_exp(a);
    results[at + 6u] = silu_gate(a, b);
    results[at + 7u] = gelu_gate(a, b);
    results[at + 8u] = scale2(a, i32(b & 255u) - 128);
    results[at + 9u] = wide_to_float(vec2<u32>(a, b));
    results[at + 10u] = bitcast<u32>(dot4I8Packed(a, b));
    results[at + 11u] = wide_to_float(wide_product(bitcast<i32>(a) >> 9u, bitcast<i32>(b) >> 4u));
    results[at + 12u] = f_sub(f_mul(a, a), f_mul(b, b));
    results[at + 13u] = f_add(b, f_mul(f_mul(a, 0x3f99999au), a));
    results[at + 14u] = select(0u, 1u, (f_mul(a, b) & MAGNITUDE) >= NOT_FINITE);
}
