
@group(0) @binding(1) var<storage, read> values: array<vec4<f32>>;

fn load(t: u32, group: u32) {
    for (var word = t; word < WORDS; word += $WGu) {
        x_words[word] = values[word];
    }
    workgroupBarrier();
}
