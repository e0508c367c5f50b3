// What a product gave for one head of one row → a query, or the cache's key or value, in Q16.
// One workgroup a head and row: first the queries, then the keys, then the values.

@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> raw: array<u32>;
@group(0) @binding(3) var<storage, read> turns: array<u32>;
// The norms of queries and of keys, then the biases of all heads, where the model has them.
@group(0) @binding(4) var<storage, read> weights: array<u32>;
@group(0) @binding(5) var<storage, read_write> queries: array<u32>;
@group(0) @binding(6) var<storage, read_write> cache: array<u32>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = group.x;
    let row = group.y;
    let exponent = prepare(t, row, head);
    let position = batch[ROWS_AT + 2u * row];
    let page = batch[PAGES_AT + batch[ROWS_AT + 2u * row + 1u] + position / $PAGEu];
    let slot = position % $PAGEu;
    for (var pair = t; pair < HEAD / 2u; pair += $WGu) {
        let word = word_of(pair, exponent);
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
