
@group(0) @binding(1) var<storage, read> states: array<u32>;
// The states with the branch added; the first workgroup writes them.
@group(0) @binding(8) var<storage, read_write> states_after: array<u32>;
@group(0) @binding(9) var<storage, read> branch: array<u32>;
@group(0) @binding(10) var<storage, read> norm_weights: array<u32>;
@group(0) @binding(11) var<storage, read> post_weights: array<u32>;

fn load(t: u32, group: u32) {
    clear_sums(t);
    var at = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        for (var i = 0u; i < 4u; i++) {
            mine[at + i] = $FIRST_VALUE;
        }
        at += 4u;
    }
    var wrong = 0u;
    $ADD
    let most = largest_of_mine(t);
    let exponent = q16_exponent(most);
    let r = inverse_rms(squares_of_mine(t, exponent), exponent, i32(BLOCKS * 32u), $EPSu);
    at = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        for (var i = 0u; i < 4u; i++) {
            if group == 0u {
                states_after[word * 4u + i] = mine[at + i];
            }
            mine[at + i] = f_mul(f_mul(mine[at + i], r), norm_weights[word * 4u + i]);
        }
        at += 4u;
    }
    let most_normed = largest_of_mine(t);
    if t == 0u && max(wrong, max(most, most_normed)) >= NOT_FINITE {
        atomicMin(&status[0], params.input_stage);
    }
    quantize_mine(t, most_normed);
}
