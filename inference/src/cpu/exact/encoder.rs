//! An encoder in the exact profile: texts' tokens → one vector each.
//! In: a batch of texts as token ids. Out: vectors of length 1 whose bits do not depend on the batch, the
//! threads or the width of SIMD: every rounding belongs to one token or one text.
//! All tokens of a batch go through each matrix together; attention stays inside a text.

use std::ops::Range;
use std::sync::Arc;

use crate::arithmetic::{NOT_FINITE, add, div, flush, magnitude_bits, mul, sqrt};
use crate::backend::{BackendError, TextEncoder, zeroed};
use crate::cpu::buffer::Arena;
use crate::cpu::pool::{Parts, Pool};
use crate::cpu::simd::SimdLevel;
use crate::model::bert::{EncoderLayer, EncoderPlan, LayerNorm, Linear, Pooling};
use crate::model::{LoadProgress, ModelError};
use crate::tokenizer::TokenId;

use super::activations::Activations;
use super::attention::{self, Block, VALUES, store_key, store_value};
use super::generic::Groups;
use super::kernels::{Kernels, Precision};
use super::pack::{COLUMNS, Packed, ROWS};
use super::phases::{Crew, Finite, product, quantize, shares};
use crate::exact::{HEAD_SIZE_MAX, ScoreScale, flushed};

/// Query rows of one chunk of attention.
const ATTENTION_ROWS: usize = 16;

/// A loaded encoder.
#[derive(Debug)]
pub(crate) struct ExactEncoder {
    plan: Arc<EncoderPlan>,
    pool: Pool,
    kernels: Kernels,
    layers: Vec<PackedLayer>,
    norm: LayerNorm,
    score_scale: ScoreScale,
}

#[derive(Debug)]
struct PackedLinear {
    matrix: Packed,
    bias: Vec<f32>,
}

#[derive(Debug)]
struct PackedLayer {
    /// Query, key and value.
    heads: [PackedLinear; 3],
    attention_output: PackedLinear,
    attention_norm: LayerNorm,
    up: PackedLinear,
    down: PackedLinear,
    output_norm: LayerNorm,
}

fn flushed_norm(norm: &LayerNorm) -> LayerNorm {
    LayerNorm {
        weight: flushed(&norm.weight),
        bias: flushed(&norm.bias),
    }
}

/// The shapes that the kernels take.
fn check_sizes(plan: &EncoderPlan) -> Result<(), ModelError> {
    let head = plan.head_size;
    let by_lines = "a multiple of 32";
    let is_line = |value: usize| value.is_multiple_of(COLUMNS);
    let by_rows = "a multiple of 16 up to 256";
    let is_head = head.is_multiple_of(ROWS) && head <= HEAD_SIZE_MAX;
    for (what, value, fits, wanted) in [
        ("the size of a head", head, is_head, by_rows),
        (
            "the hidden size",
            plan.length,
            is_line(plan.length),
            by_lines,
        ),
        (
            "the intermediate size",
            plan.feed_forward_length,
            is_line(plan.feed_forward_length),
            by_lines,
        ),
    ] {
        if !fits {
            let what = what.to_owned();
            return Err(ModelError::UnsupportedSize {
                what,
                value,
                wanted,
            });
        }
    }
    Ok(())
}

impl ExactEncoder {
    pub(crate) fn load(
        plan: Arc<EncoderPlan>,
        threads: usize,
        simd: SimdLevel,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        check_sizes(&plan)?;
        let pool = Pool::new(threads).map_err(ModelError::Spawn)?;
        let mut arena = Arena::default();
        let (mut layers, count) = (Vec::with_capacity(plan.layers.len()), plan.layers.len());
        for (index, layer) in plan.layers.iter().enumerate() {
            layers.push(pack_layer(&plan, layer, &pool, &mut arena)?);
            progress(LoadProgress {
                done_bytes: index as u64 + 1,
                total_bytes: count as u64,
            });
        }
        Ok(Self {
            kernels: Kernels::of(simd, Precision::Exact),
            norm: flushed_norm(&plan.norm),
            score_scale: ScoreScale::of(plan.head_size),
            layers,
            pool,
            plan,
        })
    }
}

fn pack_layer(
    plan: &EncoderPlan,
    layer: &EncoderLayer,
    pool: &Pool,
    arena: &mut Arena,
) -> Result<PackedLayer, ModelError> {
    let mut pack = |linear: &Linear| -> Result<PackedLinear, ModelError> {
        Ok(PackedLinear {
            matrix: Packed::new(&plan.rows(&linear.matrix), pool, arena, None)?,
            bias: flushed(&linear.bias),
        })
    };
    let [query, key, value] = &layer.heads;
    Ok(PackedLayer {
        heads: [pack(query)?, pack(key)?, pack(value)?],
        attention_output: pack(&layer.attention_output)?,
        attention_norm: flushed_norm(&layer.attention_norm),
        up: pack(&layer.up)?,
        down: pack(&layer.down)?,
        output_norm: flushed_norm(&layer.output_norm),
    })
}

impl TextEncoder for ExactEncoder {
    fn encode(&self, texts: &[&[TokenId]]) -> Result<Vec<Vec<f32>>, BackendError> {
        let mut batch = Batch::new(self, texts)?;
        batch.begin(texts)?;
        for (index, layer) in self.layers.iter().enumerate() {
            batch.layer(index, layer)?;
        }
        batch.pool_texts()
    }

    fn batch_bytes(&self, tokens: usize) -> u64 {
        let plan = &self.plan;
        // A text's keys and values take up whole blocks; the shortest text has two tokens.
        let positions = (tokens / 2 + 1) * VALUES;
        let floats = 7 * plan.length + 2 * plan.feed_forward_length;
        let q16 = Activations::bytes(plan.length, tokens) * 2
            + Activations::bytes(plan.feed_forward_length, tokens);
        let queries = tokens * (2 * plan.length + 4 * plan.heads);
        let cache = positions * 4 * (plan.length + 2 * plan.heads);
        (tokens * floats * 4 + q16 + queries + cache) as u64
    }
}

/// Where a text's tokens are.
#[derive(Debug, Clone)]
struct Span {
    tokens: Range<usize>,
    /// The first of its positions in the caches, a whole number of blocks.
    room: usize,
}

/// A batch on its way through the layers; `n` tokens, `room` positions.
struct Batch<'a> {
    encoder: &'a ExactEncoder,
    spans: Vec<Span>,
    /// Which text each token is of.
    texts: Vec<usize>,
    n: usize,
    room: usize,
    /// `[n][length]`
    states: Vec<f32>,
    /// `[query, key, value][head][row group][n][16]`
    raw: Vec<f32>,
    /// `[head][n][head size]`
    queries: Vec<i16>,
    /// `[head][n]`
    query_exponents: Vec<i32>,
    /// `[head][room]` of what `attention.rs` lays out
    keys: Vec<i16>,
    values: Vec<i16>,
    key_exponents: Vec<i32>,
    value_exponents: Vec<i32>,
    /// `[n][length]`
    attended: Vec<f32>,
    /// `[row group][n][16]`
    branch: Vec<f32>,
    ups: Vec<f32>,
    /// `[n][feed-forward length]`
    hidden: Vec<f32>,
    of_states: Activations,
    of_attended: Activations,
    of_hidden: Activations,
}

impl<'a> Batch<'a> {
    fn new(encoder: &'a ExactEncoder, texts: &[&[TokenId]]) -> Result<Self, BackendError> {
        let plan = &*encoder.plan;
        let (mut spans, mut of_tokens) = (Vec::new(), Vec::new());
        let (mut n, mut room) = (0, 0);
        for (text, tokens) in texts.iter().enumerate() {
            let end = n + tokens.len();
            spans.push(Span {
                tokens: n..end,
                room,
            });
            of_tokens.resize(end, text);
            n = end;
            room += tokens.len().next_multiple_of(VALUES);
        }
        let (length, inner, heads) = (plan.length, plan.feed_forward_length, plan.heads);
        let what = "a batch of texts";
        Ok(Self {
            encoder,
            spans,
            texts: of_tokens,
            n,
            room,
            states: zeroed(n * length, what)?,
            raw: zeroed(3 * n * length, what)?,
            queries: zeroed(n * length, what)?,
            query_exponents: zeroed(n * heads, what)?,
            keys: zeroed(room * length, what)?,
            values: zeroed(room * length, what)?,
            key_exponents: zeroed(room * heads, what)?,
            value_exponents: zeroed(room * heads, what)?,
            attended: zeroed(n * length, what)?,
            branch: zeroed(n * length, what)?,
            ups: zeroed(n * inner, what)?,
            hidden: zeroed(n * inner, what)?,
            of_states: Activations::new(length, n)?,
            of_attended: Activations::new(length, n)?,
            of_hidden: Activations::new(inner, n)?,
        })
    }

    fn crew(&self) -> Crew<'a> {
        Crew {
            pool: &self.encoder.pool,
            kernels: &self.encoder.kernels,
        }
    }

    /// Rule 13: word + token type, + position, normed.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own token; kernels need their CPU"
    )]
    fn begin(&mut self, texts: &[&[TokenId]]) -> Result<(), BackendError> {
        let (encoder, plan) = (self.encoder, &self.encoder.plan);
        let (words, positions) = (plan.rows(&plan.words), plan.rows(&plan.positions));
        let token_type = flushed(&plan.token_type);
        let (length, spans, of_tokens) = (plan.length, &self.spans, &self.texts);
        let states = Parts::new(&mut self.states);
        let finite = Finite::new();
        encoder.pool.run(self.n, |token| {
            let text = of_tokens[token];
            let position = token - spans[text].tokens.start;
            // SAFETY: chunk `token` takes the row of that token and no other.
            let state = unsafe { states.part(token * length, length) };
            let mut row = vec![0.0; length];
            words
                .quant
                .dequantize(words.row(texts[text][position].index()), state);
            positions
                .quant
                .dequantize(positions.row(position), &mut row);
            for ((state, row), kind) in state.iter_mut().zip(&row).zip(&token_type) {
                *state = add(add(flush(*state), *kind), flush(*row));
            }
            let LayerNorm { weight, bias } = &encoder.norm;
            // SAFETY: the table is that of a level this CPU has.
            let fine = unsafe { (encoder.kernels.layer_norm)(state, weight, bias, plan.epsilon) };
            finite.note(token, fine);
        });
        finite.check(0, || "the embedding".to_owned())
    }

    fn layer(&mut self, index: usize, layer: &PackedLayer) -> Result<(), BackendError> {
        let (crew, n) = (self.crew(), self.n);
        let input = || format!("the input of layer {index}");
        let finite = Finite::new();
        quantize(crew, n, &self.states, &mut self.of_states, |token, fine| {
            finite.note(token, fine)
        });
        finite.check(0, input)?;
        self.heads(index, layer)?;
        self.attend(index)?;
        let attention = || format!("the attention of layer {index}");
        let finite = Finite::new();
        quantize(
            crew,
            n,
            &self.attended,
            &mut self.of_attended,
            |token, fine| finite.note(token, fine),
        );
        finite.check(0, attention)?;
        product(
            crew,
            n,
            &layer.attention_output.matrix,
            &self.of_attended,
            &mut self.branch,
        );
        self.norm(
            &layer.attention_output.bias,
            &layer.attention_norm,
            attention,
        )?;
        let middle = || format!("the middle of layer {index}");
        let finite = Finite::new();
        quantize(crew, n, &self.states, &mut self.of_states, |token, fine| {
            finite.note(token, fine)
        });
        finite.check(0, middle)?;
        self.up(layer);
        let hidden = || format!("the feed-forward of layer {index}");
        let finite = Finite::new();
        quantize(crew, n, &self.hidden, &mut self.of_hidden, |token, fine| {
            finite.note(token, fine)
        });
        finite.check(0, hidden)?;
        product(
            crew,
            n,
            &layer.down.matrix,
            &self.of_hidden,
            &mut self.branch,
        );
        self.norm(&layer.down.bias, &layer.output_norm, hidden)
    }

    /// Queries, keys and values, as Q16 per head.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own head; kernels need their CPU"
    )]
    fn heads(&mut self, index: usize, layer: &PackedLayer) -> Result<(), BackendError> {
        let (encoder, n, room) = (self.encoder, self.n, self.room);
        let (heads, size) = (encoder.plan.heads, encoder.plan.head_size);
        let groups = size / ROWS;
        let (spans, of_tokens, x) = (&self.spans, &self.texts, &self.of_states);
        let raw = Parts::new(&mut self.raw);
        let integers =
            [&mut self.queries, &mut self.keys, &mut self.values].map(|it| Parts::new(it));
        let exponents = [
            Parts::new(&mut self.query_exponents),
            Parts::new(&mut self.key_exponents),
            Parts::new(&mut self.value_exponents),
        ];
        let finite = Finite::new();
        encoder.pool.run(3 * heads, |chunk| {
            let (kind, head) = (chunk / heads, chunk % heads);
            let PackedLinear { matrix, bias } = &layer.heads[kind];
            let bias = &bias[head * size..][..size];
            // SAFETY: chunk `chunk` takes its own n · size values.
            let raw = unsafe { raw.part(chunk * n * size, n * size) };
            // SAFETY: the table is that of a level this CPU has.
            unsafe { (encoder.kernels.product)(matrix, head * groups, x, raw) };
            let count = if kind == 0 { n } else { room };
            // SAFETY: of each kind, a chunk takes its own head's part.
            let (integers, exponents) = unsafe {
                (
                    integers[kind].part(head * count * size, count * size),
                    exponents[kind].part(head * count, count),
                )
            };
            let (mut row, mut q) = ([0.0; HEAD_SIZE_MAX], [0; HEAD_SIZE_MAX]);
            let (row, q) = (&mut row[..size], &mut q[..size]);
            for token in 0..n {
                Groups {
                    values: raw,
                    n,
                    token,
                }
                .copy_to(row);
                for (row, bias) in row.chunks_exact_mut(ROWS).zip(bias.chunks_exact(ROWS)) {
                    // SAFETY: the table is that of a level this CPU has.
                    unsafe { (encoder.kernels.add)(row, &Groups::of(bias)) };
                }
                // SAFETY: as above.
                let exponent = unsafe { (encoder.kernels.quantize16)(row, q) };
                finite.note(token, exponent.is_some());
                let span = &spans[of_tokens[token]];
                let position = token - span.tokens.start;
                let at = if kind == 0 {
                    token
                } else {
                    span.room + position
                };
                match kind {
                    0 => integers[at * size..][..size].copy_from_slice(q),
                    1 => store_key(integers, at, q),
                    _ => store_value(integers, at, q),
                }
                exponents[at] = exponent.unwrap_or(0);
            }
        });
        finite.check(0, || format!("a query, key or value of layer {index}"))
    }

    /// Rule 7 for every head and token, over all positions of the token's text.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own head and tokens; kernels need their CPU"
    )]
    fn attend(&mut self, index: usize) -> Result<(), BackendError> {
        let (encoder, n, room) = (self.encoder, self.n, self.room);
        let (heads, size, length) = (
            encoder.plan.heads,
            encoder.plan.head_size,
            encoder.plan.length,
        );
        let attended = Parts::new(&mut self.attended);
        let (spans, of_tokens) = (&self.spans, &self.texts);
        let (queries, query_exponents) = (&self.queries, &self.query_exponents);
        let (keys, values) = (&self.keys, &self.values);
        let (key_exponents, value_exponents) = (&self.key_exponents, &self.value_exponents);
        let finite = Finite::new();
        let parts = n.div_ceil(ATTENTION_ROWS);
        encoder.pool.run(heads * parts, |chunk| {
            let (head, first) = (chunk % heads, chunk / heads * ATTENTION_ROWS);
            let (mut scratch, mut blocks) = (Vec::new(), Vec::new());
            for token in first..n.min(first + ATTENTION_ROWS) {
                let span = &spans[of_tokens[token]];
                let positions = span.tokens.len();
                let rows = positions.next_multiple_of(VALUES);
                let (border, size_of) = (head * room + span.room, VALUES * size);
                blocks.clear();
                blocks.extend((border..border + rows).step_by(VALUES).map(|from| Block {
                    keys: &keys[from * size..][..size_of],
                    values: &values[from * size..][..size_of],
                    key_exponents: &key_exponents[from..].as_chunks().0[0],
                    value_exponents: &value_exponents[from..].as_chunks().0[0],
                }));
                let at = head * n + token;
                let mut row = attention::Row {
                    query: &queries[at * size..][..size],
                    exponent: query_exponents[at],
                    seen: 0..positions,
                    // SAFETY: the chunk takes this head's values of its own tokens.
                    out: unsafe { attended.part(token * length + head * size, size) },
                    fine: true,
                };
                let (row, scale) = (std::slice::from_mut(&mut row), encoder.score_scale);
                // SAFETY: the table is that of a level this CPU has.
                unsafe { (encoder.kernels.attend)(row, &blocks, scale, &mut scratch) };
                finite.note(token, row[0].fine);
            }
        });
        finite.check(0, || format!("an attention score of layer {index}"))
    }

    /// Adds the branch and its bias to the states and norms them.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own token; kernels need their CPU"
    )]
    fn norm(
        &mut self,
        bias: &[f32],
        norm: &LayerNorm,
        what: impl FnOnce() -> String,
    ) -> Result<(), BackendError> {
        let (encoder, n, length) = (self.encoder, self.n, self.encoder.plan.length);
        let states = Parts::new(&mut self.states);
        let branch = &self.branch;
        let finite = Finite::new();
        encoder.pool.run(n, |token| {
            // SAFETY: chunk `token` takes the row of that token and no other.
            let state = unsafe { states.part(token * length, length) };
            let rows = state.chunks_exact_mut(ROWS).zip(bias.chunks_exact(ROWS));
            for (group, (state, bias)) in rows.enumerate() {
                let mut row = [0.0; ROWS];
                row.copy_from_slice(&branch[(group * n + token) * ROWS..][..ROWS]);
                // SAFETY: the table is that of a level this CPU has.
                unsafe {
                    (encoder.kernels.add)(&mut row, &Groups::of(bias));
                    (encoder.kernels.add)(state, &Groups::of(&row));
                }
            }
            let (weight, epsilon) = (&norm.weight, encoder.plan.epsilon);
            // SAFETY: as above.
            let fine = unsafe { (encoder.kernels.layer_norm)(state, weight, &norm.bias, epsilon) };
            finite.note(token, fine);
        });
        finite.check(0, what)
    }

    /// The wide half of the feed-forward part, with its GELU.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own row groups; kernels need their CPU"
    )]
    fn up(&mut self, layer: &PackedLayer) {
        let (encoder, n) = (self.encoder, self.n);
        let length = encoder.plan.feed_forward_length;
        let (ups, hidden) = (Parts::new(&mut self.ups), Parts::new(&mut self.hidden));
        let PackedLinear { matrix, bias } = &layer.up;
        let (x, biases) = (&self.of_states, bias.as_chunks::<ROWS>().0);
        let groups = matrix.group_count();
        let (chunks, share) = shares(&encoder.pool, groups);
        encoder.pool.run(chunks, |chunk| {
            let of_chunk = biases.iter().enumerate().skip(chunk * share).take(share);
            for (group, bias) in of_chunk {
                // SAFETY: chunk `chunk` takes the values of its own groups.
                let out = unsafe { ups.part(group * n * ROWS, n * ROWS) };
                // SAFETY: the table is that of a level this CPU has.
                unsafe {
                    (encoder.kernels.product)(matrix, group, x, out);
                    (encoder.kernels.biased_gelu)(out, bias);
                }
                for (token, row) in out.as_chunks::<ROWS>().0.iter().enumerate() {
                    // SAFETY: these are the group's own columns of the token's row.
                    let out = unsafe { hidden.part(token * length + group * ROWS, ROWS) };
                    out.copy_from_slice(row);
                }
            }
        });
    }

    /// Rule 14: the vectors of the texts.
    fn pool_texts(&self) -> Result<Vec<Vec<f32>>, BackendError> {
        let plan = &self.encoder.plan;
        let length = plan.length;
        let mut vectors = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            let mut vector = zeroed(length, "vectors")?;
            let count = match plan.pooling {
                Pooling::Mean => span.tokens.len(),
                Pooling::First => 1,
            };
            let rows = self.states[span.tokens.start * length..].chunks_exact(length);
            for row in rows.take(count) {
                for (sum, value) in vector.iter_mut().zip(row) {
                    *sum = add(*sum, *value);
                }
            }
            for value in &mut vector {
                *value = div(*value, count as f32);
            }
            let squares = vector
                .iter()
                .fold(0.0, |sum, value| add(sum, mul(*value, *value)));
            let norm = sqrt(squares);
            for value in &mut vector {
                *value = div(*value, norm);
            }
            // A vector of zeros has no direction, and ends here too.
            if magnitude_bits(&vector) >= NOT_FINITE {
                let (what, position) = ("the vector of a text".to_owned(), span.tokens.start);
                return Err(BackendError::NotFinite { what, position });
            }
            vectors.push(vector);
        }
        Ok(vectors)
    }
}
