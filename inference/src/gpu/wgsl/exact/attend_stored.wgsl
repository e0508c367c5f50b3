// Attention to queries and keys that are in memory already: `heads` has written them.

@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> queries: array<u32>;
@group(0) @binding(3) var<storage, read> cache: array<u32>;
@group(0) @binding(4) var<storage, read_write> scores: array<u32>;
@group(0) @binding(5) var<storage, read_write> attended: array<u32>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;

const HEADS: u32 = $HEADSu;
const KV: u32 = $KVu;

// The word of the query for a pair, and its exponent.
fn query_word(row: u32, head: u32, pair: u32) -> u32 {
    return queries[(row * HEADS + head) * (HALF + 1u) + pair];
}

fn begin(t: u32, row: u32, head: u32) -> i32 {
    return bitcast<i32>(query_word(row, head, HALF));
}

fn key_word(at: u32, pair: u32, newest: bool) -> u32 {
    return cache[at];
}

fn value_word(at: u32, pair: u32, newest: bool) -> u32 {
    return cache[at];
}

fn exponent_word(at: u32, which: u32, newest: bool) -> i32 {
    return bitcast<i32>(cache[at]);
}
