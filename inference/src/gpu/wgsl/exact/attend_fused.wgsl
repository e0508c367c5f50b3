// Attention of the only row of a step, with its heads made on the way: each workgroup makes its query, and the
// key and value of the row's own position; the first of those that share them writes them to the cache.

@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> raw: array<u32>;
@group(0) @binding(3) var<storage, read_write> cache: array<u32>;
@group(0) @binding(4) var<storage, read_write> scores: array<u32>;
@group(0) @binding(5) var<storage, read_write> attended: array<u32>;
@group(0) @binding(6) var<storage, read> turns: array<u32>;
@group(0) @binding(7) var<storage, read> weights: array<u32>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;

// Of the row's own position, which another workgroup may be writing to the cache right now.
var<workgroup> own_query: array<u32, $HALF_LENGTH>;
var<workgroup> own_key: array<u32, $HALF_LENGTH>;
var<workgroup> own_value: array<u32, $HALF_LENGTH>;
var<workgroup> own_exponents: array<i32, 2>;

fn query_word(row: u32, head: u32, pair: u32) -> u32 {
    return own_query[pair];
}

fn key_word(at: u32, pair: u32, newest: bool) -> u32 {
    if newest {
        return own_key[pair];
    }
    return cache[at];
}

fn value_word(at: u32, pair: u32, newest: bool) -> u32 {
    if newest {
        return own_value[pair];
    }
    return cache[at];
}

fn exponent_word(at: u32, which: u32, newest: bool) -> i32 {
    if newest {
        return own_exponents[which];
    }
    return bitcast<i32>(cache[at]);
}

fn begin(t: u32, row: u32, head: u32) -> i32 {
    let kv = head * KV / HEADS;
    let query_exponent = prepare(t, row, head);
    for (var pair = t; pair < HALF; pair += $WGu) {
        own_query[pair] = word_of(pair, query_exponent);
    }
    workgroupBarrier();
    let key_exponent = prepare(t, row, HEADS + kv);
    for (var pair = t; pair < HALF; pair += $WGu) {
        own_key[pair] = word_of(pair, key_exponent);
    }
    workgroupBarrier();
    let value_exponent = prepare(t, row, HEADS + KV + kv);
    for (var pair = t; pair < HALF; pair += $WGu) {
        own_value[pair] = word_of(pair, value_exponent);
    }
    if t == 0u {
        own_exponents[0] = key_exponent;
        own_exponents[1] = value_exponent;
    }
    workgroupBarrier();
    if head == 0u || (head - 1u) * KV / HEADS != kv {
        let position = batch[ROWS_AT + 2u * row];
        let page = batch[PAGES_AT + batch[ROWS_AT + 2u * row + 1u] + position / $PAGEu];
        let slot = position % $PAGEu;
        for (var pair = t; pair < HALF; pair += $WGu) {
            cache[key_at(page, kv, pair) + slot] = own_key[pair];
            cache[value_at(page, kv, slot) + pair] = own_value[pair];
        }
        if t == 0u {
            cache[exponents_at(page, kv) + slot] = bitcast<u32>(key_exponent);
            cache[exponents_at(page, kv) + $PAGEu + slot] = bitcast<u32>(value_exponent);
        }
    }
    return query_exponent;
}
