//! One step of a sequence: tokens → logits.
//! In: a batch of tokens and where they stand. Out: the last one's logits, and keys and values in the cache.
//! Each phase is shared out in chunks to the pool; every chunk writes memory of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arithmetic::{NOT_FINITE, magnitude_bits};
use crate::backend::{BackendError, Sequence};
use crate::cpu::pool::{Parts, Pool};
use crate::model::plan::{Gate, Plan, RopePairs};
use crate::tokenizer::TokenId;

use super::activations::Activations;
use super::attention::{Head, HeadCache, store_key, store_value};
use super::generic::rope_adjacent;
use super::memory::{Buffers, Cache};
use super::pack::{Packed, ROWS};
use super::{BATCH, PackedLayer, Weights};

/// Query rows of one chunk of attention while a prompt is read.
const ATTENTION_ROWS: usize = 8;
/// Chunks of a product for each thread: so many that a late thread holds nobody up for long.
const CHUNKS_PER_THREAD: usize = 4;

/// A sequence in the exact profile.
#[derive(Debug)]
pub(super) struct ExactSequence {
    weights: Arc<Weights>,
    context_tokens: usize,
    cache: Cache,
    buffers: Buffers,
}

fn batch(context_tokens: usize) -> usize {
    BATCH.min(context_tokens)
}

impl ExactSequence {
    pub(super) fn new(weights: Arc<Weights>, context_tokens: usize) -> Result<Self, BackendError> {
        let cache = Cache::new(&weights.plan, context_tokens)?;
        let buffers = Buffers::new(&weights.plan, batch(context_tokens))?;
        Ok(Self {
            weights,
            context_tokens,
            cache,
            buffers,
        })
    }

    pub(super) fn bytes(plan: &Plan, context_tokens: usize) -> u64 {
        Cache::bytes(plan, context_tokens)
            .saturating_add(Buffers::bytes(plan, batch(context_tokens)))
    }
}

impl Sequence for ExactSequence {
    fn run(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        logits: Option<&mut [f32]>,
    ) -> Result<(), BackendError> {
        let weights = Arc::clone(&self.weights);
        let mut step = Step {
            weights: &weights,
            cache: &mut self.cache,
            buffers: &mut self.buffers,
            n: tokens.len(),
            position,
        };
        step.begin(tokens);
        for (index, layer) in weights.layers.iter().enumerate() {
            step.layer(index, layer)?;
        }
        match logits {
            Some(logits) => step.head(logits),
            None => Ok(()),
        }
    }

    fn fork(&self, positions: usize) -> Result<Box<dyn Sequence>, BackendError> {
        let weights = Arc::clone(&self.weights);
        let cache = self.cache.fork(&weights.plan, positions)?;
        let buffers = Buffers::new(&weights.plan, batch(self.context_tokens))?;
        Ok(Box::new(Self {
            weights,
            context_tokens: self.context_tokens,
            cache,
            buffers,
        }))
    }
}

/// Collects the first token whose vector is not finite.
struct Finite(AtomicUsize);

impl Finite {
    fn new() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }

    fn note(&self, token: usize, finite: bool) {
        if !finite {
            self.0.fetch_min(token, Ordering::Relaxed);
        }
    }

    fn check(self, position: usize, what: impl FnOnce() -> String) -> Result<(), BackendError> {
        match self.0.into_inner() {
            usize::MAX => Ok(()),
            token => Err(BackendError::NotFinite {
                what: what(),
                position: position + token,
            }),
        }
    }
}

/// A step on its way through the layers.
struct Step<'a> {
    weights: &'a Weights,
    cache: &'a mut Cache,
    buffers: &'a mut Buffers,
    n: usize,
    /// Of the first token.
    position: usize,
}

impl Step<'_> {
    fn begin(&mut self, tokens: &[TokenId]) {
        let plan = &self.weights.plan;
        let rows = self.buffers.states.chunks_exact_mut(plan.embedding_length);
        for (row, token) in rows.zip(tokens) {
            self.weights.embed(*token, row);
        }
        let pairs = plan.rope_dimensions / 2;
        for (offset, turns) in self
            .buffers
            .turns
            .chunks_exact_mut(pairs)
            .take(self.n)
            .enumerate()
        {
            self.weights.turns(self.position + offset, turns);
        }
    }

    fn layer(&mut self, index: usize, layer: &PackedLayer) -> Result<(), BackendError> {
        self.norm(index > 0, &layer.attention_norm, || {
            format!("the input of layer {index}")
        })?;
        self.heads(index, layer)?;
        self.attend(index)?;
        let (buffers, weights, n) = (&mut *self.buffers, self.weights, self.n);
        let what = || format!("the attention of layer {index}");
        quantize(
            weights,
            n,
            &buffers.attended,
            &mut buffers.of_attended,
            self.position,
            what,
        )?;
        product(
            weights,
            n,
            &layer.attention_output,
            &buffers.of_attended,
            &mut buffers.branch,
        );
        self.norm(true, &layer.feed_forward_norm, || {
            format!("the middle of layer {index}")
        })?;
        self.gate(layer);
        let (buffers, weights, n) = (&mut *self.buffers, self.weights, self.n);
        let what = || format!("the feed-forward of layer {index}");
        quantize(
            weights,
            n,
            &buffers.hidden,
            &mut buffers.of_hidden,
            self.position,
            what,
        )?;
        product(
            weights,
            n,
            &layer.down,
            &buffers.of_hidden,
            &mut buffers.branch,
        );
        Ok(())
    }

    /// Adds the branch to the states, norms them and quantizes the result.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own token; kernels need their CPU"
    )]
    fn norm(
        &mut self,
        add_branch: bool,
        norm_weights: &[f32],
        what: impl FnOnce() -> String,
    ) -> Result<(), BackendError> {
        let (weights, n) = (self.weights, self.n);
        let length = weights.plan.embedding_length;
        let buffers = &mut *self.buffers;
        let states = Parts::new(&mut buffers.states);
        let normed = Parts::new(&mut buffers.normed);
        let branch = &buffers.branch;
        let writer = buffers.of_embedding.begin(n);
        let finite = Finite::new();
        weights.pool.run(n, |token| {
            // SAFETY: chunk `token` takes the row of that token and no other.
            let state = unsafe { states.part(token * length, length) };
            // SAFETY: as above.
            let normed = unsafe { normed.part(token * length, length) };
            let kernels = &weights.kernels;
            if add_branch {
                for (group, state) in state.chunks_mut(ROWS).enumerate() {
                    let branch = &branch[(group * n + token) * ROWS..][..state.len()];
                    // SAFETY: the table is that of a level this CPU has.
                    unsafe { (kernels.add)(state, branch) };
                }
            }
            // SAFETY: the table is that of a level this CPU has.
            let fine = unsafe { (kernels.norm)(state, norm_weights, weights.norm_epsilon, normed) };
            // SAFETY: as above, and only this chunk writes this token.
            finite.note(
                token,
                fine && unsafe { (kernels.quantize)(&writer, token, normed) },
            );
        });
        finite.check(self.position, what)
    }

    /// Queries, keys and values; keys and values go to the cache.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own head; kernels need their CPU"
    )]
    fn heads(&mut self, index: usize, layer: &PackedLayer) -> Result<(), BackendError> {
        let (weights, n, position) = (self.weights, self.n, self.position);
        let plan = &weights.plan;
        let (size, groups) = (plan.head_size, plan.head_size / ROWS);
        let (buffers, cache) = (&mut *self.buffers, &mut *self.cache);
        let room = cache.positions;
        let raw = Parts::new(&mut buffers.heads);
        let queries = Parts::new(&mut buffers.queries);
        let query_exponents = Parts::new(&mut buffers.query_exponents);
        let keys = Parts::new(&mut cache.keys);
        let values = Parts::new(&mut cache.values);
        let key_exponents = Parts::new(&mut cache.key_exponents);
        let value_exponents = Parts::new(&mut cache.value_exponents);
        let (x, turns) = (&buffers.of_embedding, &buffers.turns);
        let pairs = plan.rope_dimensions / 2;
        let finite = Finite::new();
        let kernels = &weights.kernels;
        weights.pool.run(plan.heads + 2 * plan.kv_heads, |chunk| {
            let (kind, head) = Kind::of(chunk, plan);
            let matrix = match kind {
                Kind::Query => &layer.query,
                Kind::Key => &layer.key,
                Kind::Value => &layer.value,
            };
            // SAFETY: chunk `chunk` takes its own n · size values.
            let raw = unsafe { raw.part(chunk * n * size, n * size) };
            for (group, out) in raw.chunks_exact_mut(n * ROWS).enumerate() {
                // SAFETY: the table is that of a level this CPU has.
                unsafe { (kernels.product)(matrix, head * groups + group, x, out) };
            }
            let cache_head = index * plan.kv_heads + head;
            let (at, count) = match kind {
                Kind::Query => (head * n, n),
                Kind::Key | Kind::Value => (cache_head * room, room),
            };
            // SAFETY: of queries, keys and values each, a chunk takes its own head's part.
            let (quantized, exponents) = unsafe {
                match kind {
                    Kind::Query => (
                        queries.part(at * size, count * size),
                        query_exponents.part(at, count),
                    ),
                    Kind::Key => (
                        keys.part(at * size, count * size),
                        key_exponents.part(at, count),
                    ),
                    Kind::Value => (
                        values.part(at * size, count * size),
                        value_exponents.part(at, count),
                    ),
                }
            };
            let mut row = [0.0; super::HEAD_SIZE_MAX];
            let mut q = [0; super::HEAD_SIZE_MAX];
            let (row, q) = (&mut row[..size], &mut q[..size]);
            for token in 0..n {
                for (group, row) in row.chunks_exact_mut(ROWS).enumerate() {
                    row.copy_from_slice(&raw[(group * n + token) * ROWS..][..ROWS]);
                }
                if kind != Kind::Value {
                    let turns = &turns[token * pairs..][..pairs];
                    match plan.rope_pairs {
                        RopePairs::Adjacent => rope_adjacent(row, turns),
                    }
                }
                // SAFETY: the table is that of a level this CPU has.
                let exponent = unsafe { (kernels.quantize16)(row, q) };
                finite.note(token, exponent.is_some());
                let (exponent, at) = (exponent.unwrap_or(0), position + token);
                match kind {
                    Kind::Query => {
                        quantized[token * size..][..size].copy_from_slice(q);
                        exponents[token] = exponent;
                    }
                    Kind::Key => {
                        store_key(quantized, at, q);
                        exponents[at] = exponent;
                    }
                    Kind::Value => {
                        store_value(quantized, at, q);
                        exponents[at] = exponent;
                    }
                }
            }
        });
        finite.check(position, || {
            format!("a query, key or value of layer {index}")
        })
    }

    /// Rule 7 for every query head and token.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own head and tokens; kernels need their CPU"
    )]
    fn attend(&mut self, index: usize) -> Result<(), BackendError> {
        let (weights, n, position) = (self.weights, self.n, self.position);
        let (plan, cache) = (&weights.plan, &*self.cache);
        let (size, room) = (plan.head_size, cache.positions);
        let width = plan.heads * size;
        let Buffers {
            queries,
            query_exponents,
            attended,
            ..
        } = &mut *self.buffers;
        let attended = Parts::new(attended);
        let finite = Finite::new();
        let parts = n.div_ceil(ATTENTION_ROWS);
        weights.pool.run(plan.heads * parts, |chunk| {
            // The longest rows first: they take the most time.
            let (head, part) = (chunk % plan.heads, parts - 1 - chunk / plan.heads);
            let at = index * plan.kv_heads + head * plan.kv_heads / plan.heads;
            let head_cache = |positions| HeadCache {
                keys: &cache.keys[at * room * size..][..room * size],
                values: &cache.values[at * room * size..][..room * size],
                key_exponents: &cache.key_exponents[at * room..][..room],
                value_exponents: &cache.value_exponents[at * room..][..room],
                positions,
            };
            let mut scratch = Vec::new();
            let first = part * ATTENTION_ROWS;
            for token in first..n.min(first + ATTENTION_ROWS) {
                let row = head * n + token;
                let query = Head {
                    query: &queries[row * size..][..size],
                    exponent: query_exponents[row],
                    scale: weights.score_scale,
                };
                // SAFETY: chunk (head, part) takes this head's values of the tokens of its part.
                let out = unsafe { attended.part(token * width + head * size, size) };
                let cache = head_cache(position + token + 1);
                // SAFETY: the table is that of a level this CPU has.
                let fine = unsafe { (weights.kernels.attend)(&query, &cache, &mut scratch, out) };
                finite.note(token, fine);
            }
        });
        finite.check(position, || format!("an attention score of layer {index}"))
    }

    /// The gated half of the feed-forward part.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own row groups; kernels need their CPU"
    )]
    fn gate(&mut self, layer: &PackedLayer) {
        let (weights, n) = (self.weights, self.n);
        let length = weights.plan.feed_forward_length;
        let buffers = &mut *self.buffers;
        let gates = Parts::new(&mut buffers.gates);
        let ups = Parts::new(&mut buffers.ups);
        let hidden = Parts::new(&mut buffers.hidden);
        let (x, kernels) = (&buffers.of_embedding, &weights.kernels);
        let groups = layer.gate.group_count();
        let (chunks, share) = shares(&weights.pool, groups);
        weights.pool.run(chunks, |chunk| {
            let first = chunk * share;
            let count = share.min(groups - first);
            let (at, values) = (first * n * ROWS, count * n * ROWS);
            // SAFETY: chunk `chunk` takes the values of its own groups.
            let (gates, ups) = unsafe { (gates.part(at, values), ups.part(at, values)) };
            let of_groups = gates
                .chunks_exact_mut(n * ROWS)
                .zip(ups.chunks_exact_mut(n * ROWS));
            for (group, (gates, ups)) in of_groups.enumerate() {
                // SAFETY: the table is that of a level this CPU has.
                unsafe {
                    (kernels.product)(&layer.gate, first + group, x, gates);
                    (kernels.product)(&layer.up, first + group, x, ups);
                }
            }
            match weights.plan.gate {
                // SAFETY: the table is that of a level this CPU has.
                Gate::Silu => unsafe { (kernels.silu_gate)(gates, ups) },
            }
            for (row, values) in ups.as_chunks::<ROWS>().0.iter().enumerate() {
                let (group, token) = (first + row / n, row % n);
                // SAFETY: these are the group's own columns of the token's row; the length is a whole
                // number of groups, as `check_sizes` has made sure.
                let out = unsafe { hidden.part(token * length + group * ROWS, ROWS) };
                out.copy_from_slice(values);
            }
        });
    }

    /// The logits of the last token.
    #[expect(unsafe_code, reason = "kernels need their CPU")]
    fn head(&mut self, logits: &mut [f32]) -> Result<(), BackendError> {
        let (weights, n, last) = (self.weights, self.n, self.n - 1);
        let length = weights.plan.embedding_length;
        let buffers = &mut *self.buffers;
        let state = &mut buffers.states[last * length..][..length];
        let kernels = &weights.kernels;
        for (group, state) in state.chunks_mut(ROWS).enumerate() {
            let branch = &buffers.branch[(group * n + last) * ROWS..][..state.len()];
            // SAFETY: the table is that of a level this CPU has.
            unsafe { (kernels.add)(state, branch) };
        }
        let normed = &mut buffers.normed[..length];
        let writer = buffers.of_embedding.begin(1);
        // SAFETY: the table is that of a level this CPU has; nobody else writes.
        let fine = unsafe {
            (kernels.norm)(state, &weights.output_norm, weights.norm_epsilon, normed)
                && (kernels.quantize)(&writer, 0, normed)
        };
        let position = self.position + last;
        let not_finite = |what: &str| BackendError::NotFinite {
            what: what.to_owned(),
            position,
        };
        if !fine {
            return Err(not_finite("the output of the last layer"));
        }
        product(weights, 1, &weights.head, &buffers.of_embedding, logits);
        if magnitude_bits(logits) >= NOT_FINITE {
            Err(not_finite("a logit"))
        } else {
            Ok(())
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Query,
    Key,
    Value,
}

impl Kind {
    /// What a chunk of `heads` computes, and its number among its kind.
    fn of(chunk: usize, plan: &Plan) -> (Self, usize) {
        if chunk < plan.heads {
            (Self::Query, chunk)
        } else if chunk < plan.heads + plan.kv_heads {
            (Self::Key, chunk - plan.heads)
        } else {
            (Self::Value, chunk - plan.heads - plan.kv_heads)
        }
    }
}

/// How many chunks of how many groups.
fn shares(pool: &Pool, groups: usize) -> (usize, usize) {
    let share = groups.div_ceil(pool.threads() * CHUNKS_PER_THREAD).max(1);
    (groups.div_ceil(share), share)
}

/// A matrix times all tokens: `out` is `[row group][n][16]`, without the padding of the last group if
/// there is one token.
#[expect(
    unsafe_code,
    reason = "each chunk works on its own row groups; kernels need their CPU"
)]
fn product(weights: &Weights, n: usize, matrix: &Packed, x: &Activations, out: &mut [f32]) {
    let groups = matrix.group_count();
    let (chunks, share) = shares(&weights.pool, groups);
    let length = out.len();
    let out = Parts::new(out);
    weights.pool.run(chunks, |chunk| {
        for group in chunk * share..groups.min((chunk + 1) * share) {
            let at = group * n * ROWS;
            let mut padded = [0.0; ROWS];
            let whole = at + n * ROWS <= length;
            // SAFETY: chunk `chunk` takes the values of its own groups.
            let part = unsafe { out.part(at, if whole { n * ROWS } else { length - at }) };
            let target: &mut [f32] = if whole { &mut *part } else { &mut padded };
            // SAFETY: the table is that of a level this CPU has.
            unsafe { (weights.kernels.product)(matrix, group, x, target) };
            if !whole {
                part.copy_from_slice(&padded[..length - at]);
            }
        }
    });
}

/// Quantizes the vectors of all tokens.
#[expect(
    unsafe_code,
    reason = "each chunk works on its own token; kernels need their CPU"
)]
fn quantize(
    weights: &Weights,
    n: usize,
    values: &[f32],
    out: &mut Activations,
    position: usize,
    what: impl FnOnce() -> String,
) -> Result<(), BackendError> {
    let writer = out.begin(n);
    let finite = Finite::new();
    let length = writer.columns();
    weights.pool.run(n, |token| {
        let values = &values[token * length..][..length];
        // SAFETY: the table is that of a level this CPU has; only this chunk writes this token.
        finite.note(token, unsafe {
            (weights.kernels.quantize)(&writer, token, values)
        });
    });
    finite.check(position, what)
}
