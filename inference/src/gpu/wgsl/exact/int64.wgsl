fn wide_sum(a: i64, b: i64) -> i64 {
    return a + b;
}

fn to_float(a: i64) -> u32 {
    let bits = bitcast<u64>(a);
    return wide_to_float(vec2<u32>(u32(bits), u32(bits >> 32u)));
}

fn wide_product(a: i32, b: i32) -> vec2<u32> {
    let bits = bitcast<u64>(i64(a) * i64(b));
    return vec2<u32>(u32(bits), u32(bits >> 32u));
}
