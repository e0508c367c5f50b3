// Where a thread stands: in which subgroup, of how many, and where in it.
var<private> subgroup: u32;
var<private> subgroups: u32;
var<private> subgroup_place: u32;
