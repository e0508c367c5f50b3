// Sums and maxima of a workgroup of $WG threads, a power of two, through its memory.

var<workgroup> group_values: array<f32, $WG>;

fn group_max(t: u32, value: f32) -> f32 {
    group_values[t] = value;
    for (var half = $WGu / 2u; half > 0u; half = half / 2u) {
        workgroupBarrier();
        if t < half {
            group_values[t] = max(group_values[t], group_values[t + half]);
        }
    }
    workgroupBarrier();
    let most = group_values[0];
    workgroupBarrier();
    return most;
}

fn group_sum(t: u32, value: f32) -> f32 {
    group_values[t] = value;
    for (var half = $WGu / 2u; half > 0u; half = half / 2u) {
        workgroupBarrier();
        if t < half {
            group_values[t] = group_values[t] + group_values[t + half];
        }
    }
    workgroupBarrier();
    let sum = group_values[0];
    workgroupBarrier();
    return sum;
}
