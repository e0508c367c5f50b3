// What a product does first where it is a step's only row: each workgroup brings the vector into Q16 by itself,
// which costs less than a dispatch of its own. The values of a thread are its words of four columns.

const WORDS: u32 = BLOCKS * 8u;
@group(0) @binding(7) var<storage, read_write> status: array<atomic<u32>>;
var<private> mine: array<u32, $MINE>;
var<private> x_exponent: i32;
// Of each block 8 words of high bytes and 8 of low ones, and the sums of both halves.
var<workgroup> x_words: array<u32, $X_WORDS>;
var<workgroup> x_sums: array<atomic<i32>, $X_SUMS>;

fn largest_of_mine(t: u32) -> u32 {
    var most = 0u;
    var at = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        for (var i = 0u; i < 4u; i++) {
            most = max(most, mine[at + i] & MAGNITUDE);
        }
        at += 4u;
    }
    return group_max(t, most);
}

fn squares_of_mine(t: u32, exponent: i32) -> vec2<u32> {
    var squares = vec2<u32>(0u);
    var at = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        for (var i = 0u; i < 4u; i++) {
            squares = add64(squares, square(rnd(mine[at + i], exponent)));
        }
        at += 4u;
    }
    return group_sum(t, squares);
}

fn quantize_mine(t: u32, most: u32) {
    x_exponent = q16_exponent(most);
    var at = 0u;
    for (var word = t; word < WORDS; word += $WGu) {
        var sum = 0;
        var high = 0u;
        var low = 0u;
        for (var i = 0u; i < 4u; i++) {
            let q = rnd(mine[at + i], x_exponent);
            let h = (q + 128) >> 8u;
            sum += q;
            high |= (bitcast<u32>(h) & 255u) << (8u * i);
            low |= (bitcast<u32>(q) & 255u) << (8u * i);
        }
        let block = word / 8u;
        x_words[block * 16u + word % 8u] = high;
        x_words[block * 16u + 8u + word % 8u] = low;
        atomicAdd(&x_sums[word / 4u], sum);
        at += 4u;
    }
    workgroupBarrier();
}

fn clear_sums(t: u32) {
    for (var i = t; i < BLOCKS * 2u; i += $WGu) {
        atomicStore(&x_sums[i], 0);
    }
}
