// Attention of one query head of one row to the positions that it sees. One workgroup a head and row. Scores,
// then their weights, stand in memory between the passes.

const HALF: u32 = $HEADu / 2u;
// Positions are shared among so many teams of HALF threads.
const TEAMS: u32 = $WGu / HALF;

var<workgroup> query: array<f32, $HEAD>;
var<workgroup> sums: array<vec2<f32>, $WG>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = group.x;
    let row = group.y;
    let kv = head * KV / HEADS;
    let position = batch[ROWS_AT + 2u * row];
    let pages = PAGES_AT + batch[ROWS_AT + 2u * row + 1u];
    let first = $FIRST_SEEN;
    let score_at = (row * HEADS + head) * batch[2];
    begin(t, row, head);
    workgroupBarrier();
    var most = -3.4e38;
    for (var p = first + t; p <= position; p += $WGu) {
        let page = batch[pages + p / $PAGEu];
        let keys = key_at(page, kv, 0u) + p % $PAGEu;
        var score = 0.0;
        for (var i = 0u; i < 2u * HALF; i++) {
            score += query[i] * key_value(keys + i * $PAGEu, i, p == position);
        }
        score = score * bitcast<f32>($SCALEu);
        scores[score_at + p - first] = score;
        most = max(most, score);
    }
    most = group_max(t, most);
    var total = 0.0;
    for (var p = first + t; p <= position; p += $WGu) {
        let weight = exp(scores[score_at + p - first] - most);
        total += weight;
        scores[score_at + p - first] = weight;
    }
    let divisor = group_sum(t, total);
    storageBarrier();
    let team = t / HALF;
    let i = 2u * (t % HALF);
    var sum = vec2<f32>(0.0);
    if team < TEAMS {
        for (var p = first + team; p <= position; p += TEAMS) {
            let page = batch[pages + p / $PAGEu];
            let at = value_at(page, kv, p % $PAGEu) + i;
            let newest = p == position;
            let value = vec2<f32>(value_value(at, i, newest), value_value(at + 1u, i + 1u, newest));
            sum += scores[score_at + p - first] * value;
        }
    }
    sums[t] = sum;
    workgroupBarrier();
    if t < HALF {
        for (var other = 1u; other < TEAMS; other++) {
            sum += sums[t + other * HALF];
        }
        let at = (row * HEADS + head) * 2u * HALF + 2u * t;
        attended[at] = sum.x / divisor;
        attended[at + 1u] = sum.y / divisor;
    }
}
