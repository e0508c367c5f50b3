
@group(0) @binding(1) var<storage, read> values: array<u32>;

fn load(t: u32, group: u32) {
    clear_sums(t);
    var at = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        for (var i = 0u; i < 4u; i++) {
            mine[at + i] = values[word * 4u + i];
        }
        at += 4u;
    }
    let most = largest_of_mine(t);
    if t == 0u && most >= NOT_FINITE {
        atomicMin(&status[0], params.input_stage);
    }
    quantize_mine(t, most);
}
