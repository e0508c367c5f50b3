struct Slot { rows: u32, first_group: u32, output_at: u32, extra: u32, coefficients: u32, supers: u32, exponents: u32, padding: u32 }
struct Params { slots: array<Slot, 3>, stride: u32, count_at: u32, stage: u32, input_stage: u32, groups: u32 }
const BLOCKS: u32 = $BLOCKSu;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

// Eleven bits, their shift, a sign.
fn coefficient(half: u32) -> i32 {
    let magnitude = i32((half & 0x7ffu) << ((half >> 11u) & 15u));
    return select(magnitude, -magnitude, ((half >> 15u) & 1u) == 1u);
}

fn signed_half(word: u32, which: u32) -> i32 {
    return bitcast<i32>(word << (16u - 16u * which)) >> 16u;
}

fn signed_byte(word: u32, which: u32) -> i32 {
    return bitcast<i32>(word << (24u - 8u * which)) >> 24u;
}
