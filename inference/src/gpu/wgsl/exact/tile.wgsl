// A tile of a product: $ROWS rows times $TOKENS vectors a workgroup, four of each a thread. Block by block the
// weights and the vectors are brought to where all threads of the workgroup can read them, so that each weight
// is unpacked once for $TOKENS vectors.

const TT: u32 = $TTu;
const TR: u32 = $TRu;
const TILE_THREADS: u32 = TT * TR;
// Vectors of four words of a row's block: quads of weights, then of low bytes where there are any.
const QUADS: u32 = $QUADSu;
var<workgroup> tile_weights: array<vec4<u32>, $ALL_QUADS>;
var<workgroup> tile_coefficients: array<vec2<i32>, $ROWS>;
// Of each vector: high and low bytes, sums.
var<workgroup> tile_vectors: array<vec4<u32>, $ALL_VECTORS>;

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

fn stage_vectors(t: u32, block: u32, first: u32, last: u32) {
    for (var i = t; i < $ALL_VECTORSu; i += TILE_THREADS) {
        tile_vectors[i] = x[(min(first + i / 5u, last) * BLOCKS + block) * 5u + i % 5u];
    }
}
