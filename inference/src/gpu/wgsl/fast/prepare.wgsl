// What a product gave for one head of one row → values of a query, key or value: bias, norm and RoPE.

const HEAD: u32 = $HEADu;
const HEADS: u32 = $HEADSu;
const KV: u32 = $KVu;
const PAIRS: u32 = $PAIRSu;

var<workgroup> value: array<f32, $HEAD>;

// Leaves the values in `value`; heads are numbered queries first, then keys, then values.
fn prepare(t: u32, row: u32, head: u32) {
    let at = (row * (HEADS + 2u * KV) + head) * HEAD;
    for (var i = t; i < HEAD; i += $WGu) {
        value[i] = $BIASED;
    }
    workgroupBarrier();
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
            value[first] = a * c - b * s;
            value[second] = a * s + b * c;
        }
    }
    workgroupBarrier();
}
