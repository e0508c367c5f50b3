// Sums and maxima of a workgroup by subgroups, of which each leaves one value in memory.

var<workgroup> group_values: array<f32, $WG>;

fn group_max(t: u32, value: f32) -> f32 {
    let of_subgroup = subgroupMax(value);
    if subgroup_place == 0u {
        group_values[subgroup] = of_subgroup;
    }
    workgroupBarrier();
    var most = group_values[0];
    for (var other = 1u; other < subgroups; other++) {
        most = max(most, group_values[other]);
    }
    workgroupBarrier();
    return most;
}

fn group_sum(t: u32, value: f32) -> f32 {
    let of_subgroup = subgroupAdd(value);
    if subgroup_place == 0u {
        group_values[subgroup] = of_subgroup;
    }
    workgroupBarrier();
    var sum = group_values[0];
    for (var other = 1u; other < subgroups; other++) {
        sum += group_values[other];
    }
    workgroupBarrier();
    return sum;
}
