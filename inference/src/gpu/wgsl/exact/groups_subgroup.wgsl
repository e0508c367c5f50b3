// Sums and maxima of a workgroup by subgroups, of which each leaves one value in memory.

var<workgroup> group_low: array<u32, $WG>;
var<workgroup> group_high: array<u32, $WG>;

fn group_max(t: u32, value: u32) -> u32 {
    let of_subgroup = subgroupMax(value);
    if subgroup_place == 0u {
        group_low[subgroup] = of_subgroup;
    }
    workgroupBarrier();
    var most = group_low[0];
    for (var other = 1u; other < subgroups; other++) {
        most = max(most, group_low[other]);
    }
    workgroupBarrier();
    return most;
}

// In three parts of 22 bits, of which 1,024 threads' sums fit 32 bits.
fn group_sum(t: u32, value: vec2<u32>) -> vec2<u32> {
    let a = subgroupAdd(value.x & 0x3fffffu);
    let b = subgroupAdd((value.x >> 22u) | ((value.y & 0xfffu) << 10u));
    let c = subgroupAdd(value.y >> 12u);
    if subgroup_place == 0u {
        let sum = add64(add64(vec2<u32>(a, 0u), vec2<u32>(b << 22u, b >> 10u)), vec2<u32>(0u, c << 12u));
        group_low[subgroup] = sum.x;
        group_high[subgroup] = sum.y;
    }
    workgroupBarrier();
    var sum = vec2<u32>(group_low[0], group_high[0]);
    for (var other = 1u; other < subgroups; other++) {
        sum = add64(sum, vec2<u32>(group_low[other], group_high[other]));
    }
    workgroupBarrier();
    return sum;
}
