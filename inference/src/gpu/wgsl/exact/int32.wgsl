fn wide_sum(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return add64(a, b);
}

fn to_float(a: vec2<u32>) -> u32 {
    return wide_to_float(a);
}

// A coefficient of up to 25 bits times a sum of up to 29.
fn wide_product(a: i32, b: i32) -> vec2<u32> {
    let a1 = a >> 11u;
    let a0 = a & 2047;
    let b1 = b >> 14u;
    let b0 = b & 16383;
    return add64(add64(wide_shifted(a1 * b1, 25u), wide_shifted(a0 * b1, 14u)), add64(wide_shifted(a1 * b0, 11u), wide(a0 * b0)));
}
