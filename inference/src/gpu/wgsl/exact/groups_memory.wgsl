// Sums and maxima of a workgroup of $WG threads, a power of two, through its memory.

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
