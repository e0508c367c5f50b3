// What a product does first where it is a step's only row: each workgroup norms the vector by itself, which
// costs less than a dispatch of its own. A thread keeps to its own words of four values.

const WORDS: u32 = BLOCKS * 8u;
@group(0) @binding(7) var<storage, read_write> status: array<atomic<u32>>;
var<workgroup> x_words: array<vec4<f32>, $X_WORDS>;

fn squares_of_mine(t: u32) -> f32 {
    var squares = 0.0;
    for (var word = t; word < WORDS; word += $WGu) {
        let value = x_words[word];
        squares += dot(value, value);
    }
    return squares;
}
