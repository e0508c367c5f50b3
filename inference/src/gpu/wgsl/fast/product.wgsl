
fn wide_sum(a: f32, b: f32) -> f32 {
    return a + b;
}

fn to_float(a: f32) -> u32 {
    return bitcast<u32>(a);
}

fn scale2(a: u32, exponent: i32) -> u32 {
    return bitcast<u32>(ldexp(bitcast<f32>(a), exponent));
}

fn silu_gate(gate: u32, up: u32) -> u32 {
    let g = bitcast<f32>(gate);
    return bitcast<u32>(g / (1.0 + exp(-g)) * bitcast<f32>(up));
}

fn gelu_gate(gate: u32, up: u32) -> u32 {
    let g = bitcast<f32>(gate);
    let inner = clamp(0.7978845608 * (g + 0.044715 * g * g * g), -15.0, 15.0);
    return bitcast<u32>(0.5 * g * (1.0 + tanh(inner)) * bitcast<f32>(up));
}
