// What a product gave for one head of one row → F values of a query, key or value: bias, norm and RoPE (rules
// 5 and 6), and its exponent in Q16 (rule 2).

const HEAD: u32 = $HEADu;
const HEADS: u32 = $HEADSu;
const KV: u32 = $KVu;
const PAIRS: u32 = $PAIRSu;

var<workgroup> value: array<u32, $HEAD>;

fn largest(t: u32) -> u32 {
    var most = 0u;
    for (var i = t; i < HEAD; i += $WGu) {
        most = max(most, value[i] & MAGNITUDE);
    }
    return group_max(t, most);
}

// Leaves the values in `value`; heads are numbered queries first, then keys, then values.
fn prepare(t: u32, row: u32, head: u32) -> i32 {
    let at = (row * (HEADS + 2u * KV) + head) * HEAD;
    for (var i = t; i < HEAD; i += $WGu) {
        value[i] = $BIASED;
    }
    workgroupBarrier();
    var most = largest(t);
    $NORM
    if head < HEADS + KV {
        let turned_at = row * $TURNSu + $TURN_ATu;
        for (var i = t; i < PAIRS; i += $WGu) {
            let c = turns[turned_at + 2u * i];
            let s = turns[turned_at + 2u * i + 1u];
            let first = $FIRST;
            let second = $SECOND;
            let a = value[first];
            let b = value[second];
            value[first] = f_sub(f_mul(a, c), f_mul(b, s));
            value[second] = f_add(f_mul(a, s), f_mul(b, c));
        }
    }
    workgroupBarrier();
    let most_turned = largest(t);
    if t == 0u && max(most, most_turned) >= NOT_FINITE {
        atomicMin(&status[row], stage.x);
    }
    return q16_exponent(most_turned);
}

// Two values of the head in Q16, as a word.
fn word_of(pair: u32, exponent: i32) -> u32 {
    let low = bitcast<u32>(rnd(value[2u * pair], exponent)) & 0xffffu;
    return low | (bitcast<u32>(rnd(value[2u * pair + 1u], exponent)) << 16u);
}
