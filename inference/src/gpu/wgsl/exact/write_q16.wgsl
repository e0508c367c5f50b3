// Writes 16 values of `$VALUES` in Q16: of each 32 columns 8 words of high bytes, 8 of low ones, the sums of
// both halves, the vector's exponent and a word that nobody reads.
fn write_q16(out_row: u32, unit: u32, at: u32, exponent: i32) {
    let block = (out_row * (N / 32u) + unit / 2u) * 20u;
    let half = unit % 2u;
    var sum = 0;
    for (var word = 0u; word < 4u; word++) {
        var high = 0u;
        var low = 0u;
        for (var k = 0u; k < 4u; k++) {
            let q = rnd($VALUES[at + unit * 16u + word * 4u + k], exponent);
            sum += q;
            let h = (q + 128) >> 8u;
            high |= (bitcast<u32>(h) & 255u) << (8u * k);
            low |= (bitcast<u32>(q) & 255u) << (8u * k);
        }
        quantized[block + half * 4u + word] = high;
        quantized[block + 8u + half * 4u + word] = low;
    }
    quantized[block + 16u + half] = bitcast<u32>(sum);
    quantized[block + 18u] = bitcast<u32>(exponent);
}
