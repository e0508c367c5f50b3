// What a product gave for one head of one row → a query, or the cache's key or value: bias, norm, RoPE, Q16
// (rules 5, 6 and 2). One workgroup a head and row: first the queries, then the keys, then the values.

const HEAD: u32 = $HEADu;
const HEADS: u32 = $HEADSu;
const KV: u32 = $KVu;
const PAIRS: u32 = $PAIRSu;
@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> raw: array<u32>;
@group(0) @binding(3) var<storage, read> turns: array<u32>;
// The norms of queries and of keys, then the biases of all heads, where the model has them.
@group(0) @binding(4) var<storage, read> weights: array<u32>;
@group(0) @binding(5) var<storage, read_write> queries: array<u32>;
@group(0) @binding(6) var<storage, read_write> cache: array<u32>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;

var<workgroup> value: array<u32, $HEAD>;

fn largest(t: u32) -> u32 {
    var most = 0u;
    for (var i = t; i < HEAD; i += $WGu) {
        most = max(most, value[i] & MAGNITUDE);
    }
    return group_max(t, most);
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = group.x;
    let row = group.y;
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
    let exponent = q16_exponent(most_turned);
    let position = batch[ROWS_AT + 2u * row];
    let page = batch[PAGES_AT + batch[ROWS_AT + 2u * row + 1u] + position / $PAGEu];
    let slot = position % $PAGEu;
    for (var pair = t; pair < HEAD / 2u; pair += $WGu) {
        let low = bitcast<u32>(rnd(value[2u * pair], exponent)) & 0xffffu;
        let word = low | (bitcast<u32>(rnd(value[2u * pair + 1u], exponent)) << 16u);
        if head < HEADS {
            queries[(row * HEADS + head) * (HEAD / 2u + 1u) + pair] = word;
        } else if head < HEADS + KV {
            cache[key_at(page, head - HEADS, pair) + slot] = word;
        } else {
            cache[value_at(page, head - HEADS - KV, slot) + pair] = word;
        }
    }
    if t == 0u {
        if head < HEADS {
            queries[(row * HEADS + head) * (HEAD / 2u + 1u) + HEAD / 2u] = bitcast<u32>(exponent);
        } else if head < HEADS + KV {
            cache[exponents_at(page, head - HEADS) + slot] = bitcast<u32>(exponent);
        } else {
            cache[exponents_at(page, head - HEADS - KV) + $PAGEu + slot] = bitcast<u32>(exponent);
        }
    }
}
