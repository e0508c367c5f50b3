// Attention of one query head of one row to the positions that it sees: rule 7. One workgroup a head and row.
// Scores, then their weights, stand in memory between the passes; all sums are integers.

const HALF: u32 = $HEADu / 2u;
// Positions are shared among so many teams of HALF threads.
const TEAMS: u32 = $WGu / HALF;

// High and low bytes of the two values of each pair of the query.
var<workgroup> query: array<vec4<i32>, $HALF_LENGTH>;
var<workgroup> sums: array<vec4<u32>, $WG>;

fn first_of(word: u32) -> i32 {
    return bitcast<i32>(word << 16u) >> 16u;
}

fn second_of(word: u32) -> i32 {
    return bitcast<i32>(word) >> 16u;
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = group.x;
    let row = group.y;
    let kv = head * KV / HEADS;
    let position = batch[ROWS_AT + 2u * row];
    let pages = PAGES_AT + batch[ROWS_AT + 2u * row + 1u];
    let first = $FIRST_SEEN;
    let score_at = (row * HEADS + head) * batch[2];
    let query_exponent = begin(t, row, head);
    for (var pair = t; pair < HALF; pair += $WGu) {
        let word = query_word(row, head, pair);
        let a = first_of(word);
        let b = second_of(word);
        let a_low = (a << 24u) >> 24u;
        let b_low = (b << 24u) >> 24u;
        query[pair] = vec4<i32>((a - a_low) >> 8u, a_low, (b - b_low) >> 8u, b_low);
    }
    workgroupBarrier();
    var most_key = -2147483647 - 1;
    var most_exponent = -2147483647 - 1;
    for (var p = first + t; p <= position; p += $WGu) {
        let page = batch[pages + p / $PAGEu];
        let slot = p % $PAGEu;
        let keys = key_at(page, kv, 0u) + slot;
        // Up to a head of 256, sums of halves of queries times keys fit 32 bits.
        var high = 0;
        var low = 0;
        for (var pair = 0u; pair < HALF; pair++) {
            let word = key_word(keys + pair * $PAGEu, pair, p == position);
            let q = query[pair];
            let a = first_of(word);
            let b = second_of(word);
            high += q.x * a + q.z * b;
            low += q.y * a + q.w * b;
        }
        let exponents = exponents_at(page, kv) + slot;
        let key_exponent = exponent_word(exponents, 0u, p == position);
        let dot = wide_to_float(add64(wide_shifted(high, 8u), wide(low)));
        let score = $SCORE;
        if (score & MAGNITUDE) >= NOT_FINITE {
            atomicMin(&status[row], stage.y);
        }
        scores[score_at + p - first] = score;
        most_key = max(most_key, order_key(score));
        most_exponent = max(most_exponent, exponent_word(exponents + $PAGEu, 1u, p == position));
    }
    let most = of_order_key(group_max_signed(t, most_key));
    let exponent = group_max_signed(t, most_exponent);
    var total = vec2<u32>(0u);
    for (var p = first + t; p <= position; p += $WGu) {
        let page = batch[pages + p / $PAGEu];
        let of_value = exponent_word(exponents_at(page, kv) + $PAGEu + p % $PAGEu, 1u, p == position);
        let weight = f_exp(f_sub(scores[score_at + p - first], most));
        total = add64(total, vec2<u32>(u32(rnd(weight, -21)), 0u));
        scores[score_at + p - first] = bitcast<u32>(rnd(scale2(weight, of_value - exponent), -21));
    }
    let divisor = wide_to_float(group_sum(t, total));
    storageBarrier();
    let team = t / HALF;
    let pair = t % HALF;
    var sum_a = vec2<u32>(0u);
    var sum_b = vec2<u32>(0u);
    if team < TEAMS {
        var p = first + team;
        loop {
            if p > position {
                break;
            }
            // Halves of coefficients times values: 32 of them fit 32 bits.
            var high_a = 0;
            var low_a = 0;
            var high_b = 0;
            var low_b = 0;
            for (var turn = 0u; turn < 32u && p <= position; turn++) {
                let coefficient = bitcast<i32>(scores[score_at + p - first]);
                let page = batch[pages + p / $PAGEu];
                let word = value_word(value_at(page, kv, p % $PAGEu) + pair, pair, p == position);
                let a = first_of(word);
                let b = second_of(word);
                let high = coefficient >> 11u;
                let low = coefficient & 2047;
                high_a += high * a;
                low_a += low * a;
                high_b += high * b;
                low_b += low * b;
                p += TEAMS;
            }
            sum_a = add64(sum_a, add64(wide_shifted(high_a, 11u), wide(low_a)));
            sum_b = add64(sum_b, add64(wide_shifted(high_b, 11u), wide(low_b)));
        }
    }
    sums[t] = vec4<u32>(sum_a, sum_b);
    workgroupBarrier();
    if t < HALF {
        for (var other = 1u; other < TEAMS; other++) {
            let sum = sums[t + other * HALF];
            sum_a = add64(sum_a, sum.xy);
            sum_b = add64(sum_b, sum.zw);
        }
        let at = (row * HEADS + head) * 2u * HALF + 2u * t;
        attended[at] = scale2(f_div(wide_to_float(sum_a), divisor), exponent);
        attended[at + 1u] = scale2(f_div(wide_to_float(sum_b), divisor), exponent);
    }
}
