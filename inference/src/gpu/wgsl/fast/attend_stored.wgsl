// Attention to queries and keys that are in memory already: `heads` has written them.

@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> queries: array<f32>;
@group(0) @binding(3) var<storage, read> cache: array<f32>;
@group(0) @binding(4) var<storage, read_write> scores: array<f32>;
@group(0) @binding(5) var<storage, read_write> attended: array<f32>;

const HEADS: u32 = $HEADSu;
const KV: u32 = $KVu;

fn begin(t: u32, row: u32, head: u32) {
    for (var i = t; i < 2u * HALF; i += $WGu) {
        query[i] = queries[(row * HEADS + head) * 2u * HALF + i];
    }
}

fn key_value(at: u32, i: u32, newest: bool) -> f32 {
    return cache[at];
}

fn value_value(at: u32, i: u32, newest: bool) -> f32 {
    return cache[at];
}
