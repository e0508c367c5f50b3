
@group(0) @binding(1) var<storage, read> states: array<vec4<f32>>;
// The states with the branch added; the first workgroup writes them.
@group(0) @binding(8) var<storage, read_write> states_after: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read> norm_weights: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read> post_weights: array<vec4<f32>>;

fn load(t: u32, group: u32) {
    for (var word = t; word < WORDS; word += $WGu) {
        x_words[word] = $FIRST_VALUE;
    }
    $ADD
    let r = inverse_rms(t, squares_of_mine(t), BLOCKS * 32u);
    var wrong = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        let value = x_words[word];
        if group == 0u {
            states_after[word] = value;
        }
        wrong = worse(wrong, value);
        let normed = value * r * norm_weights[word];
        wrong = worse(wrong, normed);
        x_words[word] = normed;
    }
    if group == 0u && wrong >= NOT_FINITE {
        atomicMin(&status[0], params.input_stage);
    }
    workgroupBarrier();
}
