// The float operations of the exact profile (docs/exact-arithmetic.md, rules 1, 2, 8 and 9). In and out: bits of
// f32 values that are normal or +0 ("F"). All but sums and products are made of integers. What is infinite stays
// so, or becomes NaN, and every kernel that reads values looks for both.

const NOT_FINITE: u32 = 0x7f800000u;
const MAGNITUDE: u32 = 0x7fffffffu;

// Sign, biased exponent and 24-bit mantissa (or 2^24 after a carry) to a float, flushed or infinite.
fn f_pack(sign: u32, exponent_in: i32, mantissa_in: u32) -> u32 {
    var exponent = exponent_in;
    var mantissa = mantissa_in;
    if mantissa >= 0x1000000u {
        mantissa = 0x800000u;
        exponent += 1;
    }
    if exponent < 1 || (exponent == 1 && mantissa == 0x800000u) {
        return 0u;
    }
    if exponent > 254 {
        return sign | NOT_FINITE;
    }
    return sign | (u32(exponent) << 23u) | (mantissa & 0x7fffffu);
}

fn f_exponent(a: u32) -> i32 {
    return i32((a >> 23u) & 255u);
}

fn f_mantissa(a: u32) -> u32 {
    return (a & 0x7fffffu) | 0x800000u;
}

// Dividing by 0 gives infinity, and by infinity 0.
fn f_div(a: u32, b: u32) -> u32 {
    if (b & MAGNITUDE) == 0u || (a & MAGNITUDE) >= NOT_FINITE {
        return ((a ^ b) & 0x80000000u) | NOT_FINITE;
    }
    if (a & MAGNITUDE) == 0u || (b & MAGNITUDE) >= NOT_FINITE {
        return 0u;
    }
    var rest = f_mantissa(a);
    let divisor = f_mantissa(b);
    var exponent = f_exponent(a) - f_exponent(b) + 127;
    if rest < divisor {
        rest = rest << 1u;
        exponent -= 1;
    }
    // The first bit, then 24 more, eight at a time.
    var quotient = 1u;
    rest -= divisor;
    for (var i = 0u; i < 3u; i++) {
        rest = rest << 8u;
        let digit = rest / divisor;
        quotient = (quotient << 8u) | digit;
        rest -= digit * divisor;
    }
    var mantissa = quotient >> 1u;
    if (quotient & 1u) == 1u && (rest != 0u || (mantissa & 1u) == 1u) {
        mantissa += 1u;
    }
    return f_pack((a ^ b) & 0x80000000u, exponent, mantissa);
}

// Of a value that is not negative. Bit by bit: the root of mantissa · 2^25 has 25 bits.
fn f_sqrt(a: u32) -> u32 {
    if (a & MAGNITUDE) == 0u || (a & MAGNITUDE) >= NOT_FINITE {
        return a;
    }
    let exponent = f_exponent(a) - 127;
    let odd = u32(exponent & 1);
    let radicand = f_mantissa(a) << odd;
    var rest = 0u;
    var root = 0u;
    for (var i = 0u; i < 25u; i++) {
        // Bits 49 - 2i and 48 - 2i of radicand · 2^25.
        let at = 23 - 2 * i32(i);
        var two = 0u;
        if at >= 0 {
            two = (radicand >> u32(at)) & 3u;
        } else if at == -1 {
            two = (radicand << 1u) & 3u;
        }
        rest = (rest << 2u) | two;
        let trial = (root << 2u) | 1u;
        root = root << 1u;
        if rest >= trial {
            rest -= trial;
            root |= 1u;
        }
    }
    var mantissa = root >> 1u;
    if (root & 1u) == 1u && (rest != 0u || (mantissa & 1u) == 1u) {
        mantissa += 1u;
    }
    return f_pack(0u, ((exponent - i32(odd)) >> 1u) + 127, mantissa);
}

fn scale2(a: u32, power: i32) -> u32 {
    if (a & MAGNITUDE) == 0u {
        return 0u;
    }
    return f_pack(a & 0x80000000u, f_exponent(a) + power, f_mantissa(a));
}

// x · 2^-exponent to the nearest integer, ties to even; the caller keeps the result under 2^24.
fn rnd(x: u32, exponent: i32) -> i32 {
    let shift = 150 + exponent - f_exponent(x);
    if (x & MAGNITUDE) == 0u || shift > 25 {
        return 0;
    }
    var value = f_mantissa(x);
    if shift > 0 {
        let mantissa = value;
        value = mantissa >> u32(shift);
        let rest = mantissa & ((1u << u32(shift)) - 1u);
        let half = 1u << u32(shift - 1);
        if rest > half || (rest == half && (value & 1u) == 1u) {
            value += 1u;
        }
    } else if shift < 0 {
        value = value << u32(min(-shift, 7));
    }
    return select(i32(value), -i32(value), (x >> 31u) == 1u);
}

// The order of F values as an order of integers, and back.
fn order_key(a: u32) -> i32 {
    let s = bitcast<i32>(a);
    return s ^ ((s >> 31u) & 0x7fffffff);
}

fn of_order_key(key: i32) -> u32 {
    return bitcast<u32>(key ^ ((key >> 31u) & 0x7fffffff));
}

// Rule 2: the exponent for values of magnitudes up to that of the bits.
fn q16_exponent(magnitude: u32) -> i32 {
    if magnitude == 0u {
        return 0;
    }
    let exponent = f_exponent(magnitude) - 127 - 14;
    return exponent + select(0, 1, rnd(magnitude, exponent) > 32639);
}

fn f_exp(x_in: u32) -> u32 {
    var x = x_in;
    if order_key(x) < order_key(0xc2ae0000u) {
        x = 0xc2ae0000u;
    }
    if order_key(x) > order_key(0x42ae0000u) {
        x = 0x42ae0000u;
    }
    let n = rnd(f_mul(x, 0x3fb8aa3bu), 0);
    let whole = int_to_float(n);
    let r = f_sub(f_sub(x, f_mul(whole, 0x3f318000u)), f_mul(whole, 0xb95e8083u));
    var p = 0x39506967u;
    p = f_add(f_mul(p, r), 0x3ab743ceu);
    p = f_add(f_mul(p, r), 0x3c088908u);
    p = f_add(f_mul(p, r), 0x3d2aa9c1u);
    p = f_add(f_mul(p, r), 0x3e2aaaaau);
    p = f_add(f_mul(p, r), 0x3f000000u);
    return scale2(f_add(f_add(f_mul(p, f_mul(r, r)), r), 0x3f800000u), n);
}

fn silu_gate(gate: u32, up: u32) -> u32 {
    return f_mul(f_div(gate, f_add(0x3f800000u, f_exp(f_sub(0u, gate)))), up);
}

fn gelu_gate(gate: u32, up: u32) -> u32 {
    let z = f_mul(gate, f_add(0x3fcc422au, f_mul(0x3d922279u, f_mul(gate, gate))));
    return f_mul(f_div(gate, f_add(0x3f800000u, f_exp(f_sub(0u, z)))), up);
}

// Integers of 64 bits as (low, high), two's complement.
fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn wide(value: i32) -> vec2<u32> {
    return vec2<u32>(bitcast<u32>(value), bitcast<u32>(value >> 31u));
}

// value · 2^power for powers from 1 to 31.
fn wide_shifted(value: i32, power: u32) -> vec2<u32> {
    return vec2<u32>(bitcast<u32>(value) << power, bitcast<u32>(value >> (32u - power)));
}

// One rounding of a 64-bit integer.
fn wide_to_float(a: vec2<u32>) -> u32 {
    var low = a.x;
    var high = a.y;
    let sign = high & 0x80000000u;
    if sign != 0u {
        low = ~low + 1u;
        high = ~high + select(0u, 1u, low == 0u);
    }
    if (high | low) == 0u {
        return 0u;
    }
    let zeros = select(countLeadingZeros(high), 32u + countLeadingZeros(low), high == 0u);
    if zeros >= 32u {
        high = low << (zeros - 32u);
        low = 0u;
    } else if zeros > 0u {
        high = (high << zeros) | (low >> (32u - zeros));
        low = low << zeros;
    }
    var mantissa = high >> 8u;
    let rest = high & 255u;
    if rest > 128u || (rest == 128u && (low != 0u || (mantissa & 1u) == 1u)) {
        mantissa += 1u;
    }
    return f_pack(sign, 190 - i32(zeros), mantissa);
}

fn int_to_float(value: i32) -> u32 {
    return wide_to_float(wide(value));
}
