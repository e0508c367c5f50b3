// What kernels make of a workgroup's sums and maxima.

fn group_max_signed(t: u32, value: i32) -> i32 {
    return bitcast<i32>(group_max(t, bitcast<u32>(value) ^ 0x80000000u) ^ 0x80000000u);
}

fn square(q: i32) -> vec2<u32> {
    return vec2<u32>(u32(q * q), 0u);
}

// Rule 5's r, from the exact sum of squares of n values with an exponent.
fn inverse_rms(sum: vec2<u32>, exponent: i32, n: i32, epsilon: u32) -> u32 {
    let mean = f_div(scale2(wide_to_float(sum), 2 * exponent), int_to_float(n));
    return f_div(0x3f800000u, f_sqrt(f_add(mean, epsilon)));
}
