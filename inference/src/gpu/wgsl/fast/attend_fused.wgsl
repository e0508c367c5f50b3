// Attention of the only row of a step, with its heads made on the way: each workgroup makes its query, and the
// key and value of the row's own position; the first of those that share them writes them to the cache.

@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> raw: array<f32>;
@group(0) @binding(3) var<storage, read_write> cache: array<f32>;
@group(0) @binding(4) var<storage, read_write> scores: array<f32>;
@group(0) @binding(5) var<storage, read_write> attended: array<f32>;
@group(0) @binding(6) var<storage, read> turns: array<f32>;
@group(0) @binding(7) var<storage, read> weights: array<f32>;

// Of the row's own position, which another workgroup may be writing to the cache right now.
var<workgroup> own_key: array<f32, $HEAD>;
var<workgroup> own_value: array<f32, $HEAD>;

fn key_value(at: u32, i: u32, newest: bool) -> f32 {
    if newest {
        return own_key[i];
    }
    return cache[at];
}

fn value_value(at: u32, i: u32, newest: bool) -> f32 {
    if newest {
        return own_value[i];
    }
    return cache[at];
}

fn begin(t: u32, row: u32, head: u32) {
    let kv = head * KV / HEADS;
    prepare(t, row, head);
    for (var i = t; i < HEAD; i += $WGu) {
        query[i] = value[i];
    }
    workgroupBarrier();
    prepare(t, row, HEADS + kv);
    for (var i = t; i < HEAD; i += $WGu) {
        own_key[i] = value[i];
    }
    workgroupBarrier();
    prepare(t, row, HEADS + KV + kv);
    for (var i = t; i < HEAD; i += $WGu) {
        own_value[i] = value[i];
    }
    workgroupBarrier();
    if head == 0u || (head - 1u) * KV / HEADS != kv {
        let position = batch[ROWS_AT + 2u * row];
        let page = batch[PAGES_AT + batch[ROWS_AT + 2u * row + 1u] + position / $PAGEu];
        let slot = position % $PAGEu;
        for (var i = t; i < HEAD; i += $WGu) {
            cache[key_at(page, kv, i) + slot] = own_key[i];
            cache[value_at(page, kv, slot) + i] = own_value[i];
        }
    }
}
