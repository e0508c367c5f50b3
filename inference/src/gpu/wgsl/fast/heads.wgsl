// What a product gave for one head of one row → a query, or the cache's key or value.
// One workgroup a head and row: first the queries, then the keys, then the values.

@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> raw: array<f32>;
@group(0) @binding(3) var<storage, read> turns: array<f32>;
// The norms of queries and of keys, then the biases of all heads, where the model has them.
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> queries: array<f32>;
@group(0) @binding(6) var<storage, read_write> cache: array<f32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = group.x;
    let row = group.y;
    prepare(t, row, head);
    let position = batch[ROWS_AT + 2u * row];
    let page = batch[PAGES_AT + batch[ROWS_AT + 2u * row + 1u] + position / $PAGEu];
    let slot = position % $PAGEu;
    for (var i = t; i < HEAD; i += $WGu) {
        if head < HEADS {
            queries[(row * HEADS + head) * HEAD + i] = value[i];
        } else if head < HEADS + KV {
            cache[key_at(page, head - HEADS, i) + slot] = value[i];
        } else {
            cache[value_at(page, head - HEADS - KV, slot) + i] = value[i];
        }
    }
}
