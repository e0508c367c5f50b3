// The $BEST likeliest of each slice of a row's tokens, the likeliest first; of two that are equally likely the lower
// token. One workgroup a slice and row; what it writes is what the next dispatch takes slices of.
// Blocks of $BEST are sorted up and down in turn; of two such neighbours the likelier of each pair of places are the
// likeliest of both, in an order that half a sort repairs (bitonic sorting; Batcher 1968).

const LENGTH: u32 = $LENGTHu;
const SLICE: u32 = $SLICEu;
const BEST: u32 = $BESTu;
@group(0) @binding(0) var<storage, read> batch: array<u32>;
@group(0) @binding(1) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> values: array<$VALUE>;
@group(0) @binding(3) var<storage, read_write> best: array<vec2<u32>>;
@group(0) @binding(8) var<uniform> stage: vec4<u32>;
// Keys rise with logits; nobody's is 0 but that of places past the row's end.
var<workgroup> keys: array<u32, SLICE>;
var<workgroup> tokens: array<u32, SLICE>;

// Whether a place's token is the likelier one.
fn before(a: u32, b: u32) -> bool {
    return keys[a] > keys[b] || (keys[a] == keys[b] && tokens[a] < tokens[b]);
}

fn exchange(a: u32, b: u32, falling: bool) {
    if select(before(a, b), before(b, a), falling) {
        let key = keys[a];
        let token = tokens[a];
        keys[a] = keys[b];
        tokens[a] = tokens[b];
        keys[b] = key;
        tokens[b] = token;
    }
}

@compute @workgroup_size($WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let row = group.y;
    let first = group.x * SLICE;
    for (var i = t; i < SLICE; i += $WGu) {
        var entry = vec2<u32>(0u, 0xffffffffu);
        if first + i < LENGTH {
            let value = values[row * LENGTH + first + i];
            $ENTRY
        }
        keys[i] = entry.x;
        tokens[i] = entry.y;
    }
    for (var size = 2u; size <= BEST; size = size * 2u) {
        for (var reach = size / 2u; reach > 0u; reach = reach / 2u) {
            workgroupBarrier();
            for (var pair = t; pair < SLICE / 2u; pair += $WGu) {
                let a = 2u * pair - (pair & (reach - 1u));
                exchange(a, a + reach, (a & size) == 0u);
            }
        }
    }
    for (var apart = BEST; apart < SLICE; apart = apart * 2u) {
        let blocks = SLICE / (2u * apart);
        workgroupBarrier();
        for (var i = t; i < blocks * BEST; i += $WGu) {
            let a = i / BEST * 2u * apart + i % BEST;
            if before(a + apart, a) {
                keys[a] = keys[a + apart];
                tokens[a] = tokens[a + apart];
            }
        }
        for (var reach = BEST / 2u; reach > 0u; reach = reach / 2u) {
            workgroupBarrier();
            for (var pair = t; pair < blocks * (BEST / 2u); pair += $WGu) {
                let block = pair / (BEST / 2u);
                let within = pair % (BEST / 2u);
                let a = block * 2u * apart + 2u * within - (within & (reach - 1u));
                exchange(a, a + reach, (block & 1u) == 0u);
            }
        }
    }
    workgroupBarrier();
    for (var i = t; i < BEST; i += $WGu) {
        best[(row * groups.x + group.x) * BEST + i] = vec2<u32>(keys[i], tokens[i]);
    }
}
