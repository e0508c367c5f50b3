// Sums and products in integers: no floating-point type appears in any kernel then, so no rule of a driver on
// rounding, fusing or flushing applies. An infinity stays one, also where a CPU would make NaN of it.

fn f_add(a_in: u32, b_in: u32) -> u32 {
    let swap = (a_in & MAGNITUDE) < (b_in & MAGNITUDE);
    let a = select(a_in, b_in, swap);
    let b = select(b_in, a_in, swap);
    if (a & MAGNITUDE) >= NOT_FINITE {
        return a;
    }
    if (b & MAGNITUDE) == 0u {
        return select(a, 0u, (a & MAGNITUDE) <= 0x800000u);
    }
    var exponent = f_exponent(a);
    let apart = u32(exponent - f_exponent(b));
    // Three bits below the last one: guard, round and sticky.
    let larger = f_mantissa(a) << 3u;
    var smaller = 1u;
    if apart <= 26u {
        let whole = f_mantissa(b) << 3u;
        let shifted = whole >> apart;
        smaller = shifted | select(0u, 1u, (shifted << apart) != whole);
    }
    var sum = larger + smaller;
    if ((a ^ b) >> 31u) != 0u {
        sum = larger - smaller;
    }
    if sum == 0u {
        return 0u;
    }
    if sum >= 0x8000000u {
        sum = (sum >> 1u) | (sum & 1u);
        exponent += 1;
    } else {
        let zeros = countLeadingZeros(sum) - 5u;
        sum = sum << zeros;
        exponent -= i32(zeros);
    }
    let rest = sum & 7u;
    sum = sum >> 3u;
    if rest > 4u || (rest == 4u && (sum & 1u) == 1u) {
        sum += 1u;
    }
    return f_pack(a & 0x80000000u, exponent, sum);
}

fn f_sub(a: u32, b: u32) -> u32 {
    return f_add(a, b ^ 0x80000000u);
}

fn f_mul(a: u32, b: u32) -> u32 {
    if max(a & MAGNITUDE, b & MAGNITUDE) >= NOT_FINITE {
        return ((a ^ b) & 0x80000000u) | NOT_FINITE;
    }
    if (a & MAGNITUDE) == 0u || (b & MAGNITUDE) == 0u {
        return 0u;
    }
    let ma = f_mantissa(a);
    let mb = f_mantissa(b);
    // 24 × 24 bits by halves of 12.
    let low = (ma & 0xfffu) * (mb & 0xfffu);
    let middle = (ma >> 12u) * (mb & 0xfffu) + (ma & 0xfffu) * (mb >> 12u) + (low >> 12u);
    var high = (ma >> 12u) * (mb >> 12u) + (middle >> 12u);
    var rest = ((middle & 0xfffu) << 12u) | (low & 0xfffu);
    var exponent = f_exponent(a) + f_exponent(b) - 126;
    if high < 0x800000u {
        high = (high << 1u) | (rest >> 23u);
        rest = (rest << 1u) & 0xffffffu;
        exponent -= 1;
    }
    if rest > 0x800000u || (rest == 0x800000u && (high & 1u) == 1u) {
        high += 1u;
    }
    return f_pack((a ^ b) & 0x80000000u, exponent, high);
}
