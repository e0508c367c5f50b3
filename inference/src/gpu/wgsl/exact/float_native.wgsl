// Sums and products by the device's own f32, which the self-test has found to round as rule 1 says. The look at
// the result's bits flushes what is too small and leaves no -0; what is summed after a product is what comes out
// of that look, which keeps compilers from fusing both. The self-test looks whether they do.

fn f_flushed(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits, 0u, (bits & MAGNITUDE) <= 0x800000u);
}

fn f_add(a: u32, b: u32) -> u32 {
    return f_flushed(bitcast<f32>(a) + bitcast<f32>(b));
}

fn f_sub(a: u32, b: u32) -> u32 {
    return f_flushed(bitcast<f32>(a) - bitcast<f32>(b));
}

fn f_mul(a: u32, b: u32) -> u32 {
    return f_flushed(bitcast<f32>(a) * bitcast<f32>(b));
}
