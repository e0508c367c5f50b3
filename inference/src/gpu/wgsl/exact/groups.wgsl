// Sums and maxima of a workgroup of $WG threads, a power of two.

var<workgroup> group_low: array<u32, $WG>;
var<workgroup> group_high: array<u32, $WG>;

fn group_max(t: u32, value: u32) -> u32 {
    group_low[t] = value;
    for (var half = $WGu / 2u; half > 0u; half = half / 2u) {
        workgroupBarrier();
        if t < half {
            group_low[t] = max(group_low[t], group_low[t + half]);
        }
    }
    workgroupBarrier();
    let most = group_low[0];
    workgroupBarrier();
    return most;
}

fn group_max_signed(t: u32, value: i32) -> i32 {
    return bitcast<i32>(group_max(t, bitcast<u32>(value) ^ 0x80000000u) ^ 0x80000000u);
}

fn group_sum(t: u32, value: vec2<u32>) -> vec2<u32> {
    group_low[t] = value.x;
    group_high[t] = value.y;
    for (var half = $WGu / 2u; half > 0u; half = half / 2u) {
        workgroupBarrier();
        if t < half {
            let sum = add64(vec2<u32>(group_low[t], group_high[t]), vec2<u32>(group_low[t + half], group_high[t + half]));
            group_low[t] = sum.x;
            group_high[t] = sum.y;
        }
    }
    workgroupBarrier();
    let sum = vec2<u32>(group_low[0], group_high[0]);
    workgroupBarrier();
    return sum;
}

fn square(q: i32) -> vec2<u32> {
    return vec2<u32>(u32(q * q), 0u);
}

// Rule 5's r, from the exact sum of squares of n values with an exponent.
fn inverse_rms(sum: vec2<u32>, exponent: i32, n: i32, epsilon: u32) -> u32 {
    let mean = f_div(scale2(wide_to_float(sum), 2 * exponent), int_to_float(n));
    return f_div(0x3f800000u, f_sqrt(f_add(mean, epsilon)));
}
