// The fast profile: f32 as the device computes it. Sums have a fixed order, so a device gives the same bits
// each time; another device may give others.

const NOT_FINITE: u32 = 0x7f800000u;
const MAGNITUDE: u32 = 0x7fffffffu;

// The larger of what was wrong before and the magnitude of a value, as bits: NaN and infinity stand out.
fn worse(before: u32, value: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(value) & vec4<u32>(MAGNITUDE);
    return max(max(before, max(bits.x, bits.y)), max(bits.z, bits.w));
}
