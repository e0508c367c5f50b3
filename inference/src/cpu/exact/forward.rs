//! One step of a sequence: tokens → logits.
//! In: a batch of tokens and where they stand. Out: the last one's logits, and keys and values in the cache.
//! Each phase is shared out in chunks to the pool; every chunk writes memory of its own.

use std::sync::Arc;

use crate::arithmetic::{NOT_FINITE, magnitude_bits};
use crate::backend::{BackendError, Sequence};
use crate::cpu::pool::Parts;
use crate::exact::embed;
use crate::model::plan::{Gate, Plan};
use crate::tokenizer::TokenId;

use super::attention::{Head, HeadCache, VALUES, store_key, store_value};
use super::generic::rope;
use super::memory::{Buffers, Cache, turns_of_token};
use super::pack::ROWS;
use super::phases::{Branch, Finite, Groups, Norm, product, quantize, shares};
use super::{BATCH, PackedHeads, PackedLayer, Weights};

/// Query rows of one chunk of attention while a prompt is read.
const ATTENTION_ROWS: usize = 8;

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
        let mut before = Branch::None;
        for (index, layer) in weights.layers.iter().enumerate() {
            step.layer(index, layer, before)?;
            before = Branch::of(layer.post_feed_forward_norm.as_deref());
        }
        let Some(logits) = logits else { return Ok(()) };
        let rows = logits.chunks_exact_mut(weights.plan.vocabulary());
        let first = tokens.len() - rows.len();
        for (row, logits) in (first..).zip(rows) {
            step.head(before, row, logits)?;
        }
        Ok(())
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
            embed(plan, &self.weights.gguf, *token, row);
        }
        for (offset, turns) in self
            .buffers
            .turns
            .chunks_exact_mut(turns_of_token(plan))
            .take(self.n)
            .enumerate()
        {
            self.weights.angles.at(self.position + offset, turns);
        }
    }

    fn layer(
        &mut self,
        index: usize,
        layer: &PackedLayer,
        before: Branch<'_>,
    ) -> Result<(), BackendError> {
        self.norm(before, &layer.attention_norm, || {
            format!("the input of layer {index}")
        })?;
        self.heads(index, layer)?;
        self.attend(index)?;
        let (buffers, weights, n) = (&mut *self.buffers, self.weights, self.n);
        let what = || format!("the attention of layer {index}");
        quantize(
            weights.crew(),
            n,
            &buffers.attended,
            &mut buffers.of_attended,
            self.position,
            what,
        )?;
        product(
            weights.crew(),
            n,
            &layer.attention_output,
            &buffers.of_attended,
            &mut buffers.branch,
        );
        let branch = Branch::of(layer.post_attention_norm.as_deref());
        self.norm(branch, &layer.feed_forward_norm, || {
            format!("the middle of layer {index}")
        })?;
        self.gate(layer);
        let (buffers, weights, n) = (&mut *self.buffers, self.weights, self.n);
        let what = || format!("the feed-forward of layer {index}");
        quantize(
            weights.crew(),
            n,
            &buffers.hidden,
            &mut buffers.of_hidden,
            self.position,
            what,
        )?;
        product(
            weights.crew(),
            n,
            &layer.down,
            &buffers.of_hidden,
            &mut buffers.branch,
        );
        Ok(())
    }

    /// Adds the branch to the states, norms them and quantizes the result.
    #[expect(unsafe_code, reason = "each chunk works on its own token")]
    fn norm(
        &mut self,
        added: Branch<'_>,
        norm: &[f32],
        what: impl FnOnce() -> String,
    ) -> Result<(), BackendError> {
        let (weights, n) = (self.weights, self.n);
        let norm = Norm {
            weights,
            added,
            norm,
        };
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
            let groups = Groups {
                values: branch,
                n,
                token,
            };
            // SAFETY: only this chunk writes this token.
            let fine = unsafe { norm.token(state, &groups, normed, (&writer, token)) };
            finite.note(token, fine);
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
        let (pairs, rope_index) = (plan.rope_dimensions / 2, plan.layers[index].rope);
        let finite = Finite::new();
        let kernels = &weights.kernels;
        weights.pool.run(plan.heads + 2 * plan.kv_heads, |chunk| {
            let (kind, head) = Kind::of(chunk, plan);
            let PackedHeads { matrix, bias, norm } = match kind {
                Kind::Query => &layer.query,
                Kind::Key => &layer.key,
                Kind::Value => &layer.value,
            };
            let bias = bias.as_ref().map(|bias| &bias[head * size..][..size]);
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
            let mut row = [0.0; crate::exact::HEAD_SIZE_MAX];
            let mut q = [0; crate::exact::HEAD_SIZE_MAX];
            let (row, q) = (&mut row[..size], &mut q[..size]);
            for token in 0..n {
                let groups = Groups {
                    values: raw,
                    n,
                    token,
                };
                groups.copy_to(row);
                if let Some(bias) = bias {
                    for (row, bias) in row.chunks_exact_mut(ROWS).zip(bias.chunks_exact(ROWS)) {
                        // SAFETY: the table is that of a level this CPU has.
                        unsafe { (kernels.add)(row, bias) };
                    }
                }
                let mut fine = true;
                if let Some(norm) = norm {
                    // SAFETY: the table is that of a level this CPU has.
                    fine = unsafe { (kernels.norm)(row, norm, weights.norm_epsilon) };
                }
                if kind != Kind::Value {
                    let turns = &turns[(token * plan.ropes.len() + rope_index) * pairs..][..pairs];
                    rope(row, turns, plan.rope_pairs);
                }
                // SAFETY: the table is that of a level this CPU has.
                let exponent = unsafe { (kernels.quantize16)(row, q) };
                finite.note(token, fine && exponent.is_some());
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
            let head_cache = |position: usize| {
                // Blocks before the first position that is seen are left out.
                let first = plan.layers[index].first_seen(position);
                let border = first / VALUES * VALUES;
                let (from, rows) = (at * room + border, room - border);
                HeadCache {
                    keys: &cache.keys[from * size..][..rows * size],
                    values: &cache.values[from * size..][..rows * size],
                    key_exponents: &cache.key_exponents[from..][..rows],
                    value_exponents: &cache.value_exponents[from..][..rows],
                    first: first - border,
                    positions: position + 1 - border,
                }
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
                let cache = head_cache(position + token);
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
                // SAFETY: as above.
                Gate::GeluTanh => unsafe { (kernels.gelu_gate)(gates, ups) },
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

    /// The logits of a token.
    #[expect(unsafe_code, reason = "one token is written by one thread")]
    fn head(
        &mut self,
        added: Branch<'_>,
        token: usize,
        logits: &mut [f32],
    ) -> Result<(), BackendError> {
        let (weights, n) = (self.weights, self.n);
        let length = weights.plan.embedding_length;
        let buffers = &mut *self.buffers;
        let state = &mut buffers.states[token * length..][..length];
        let normed = &mut buffers.normed[..length];
        let groups = Groups {
            values: &buffers.branch,
            n,
            token,
        };
        let writer = buffers.of_embedding.begin(1);
        let norm = Norm {
            weights,
            added,
            norm: &weights.output_norm,
        };
        // SAFETY: this is the only thread that writes.
        let fine = unsafe { norm.token(state, &groups, normed, (&writer, 0)) };
        let position = self.position + token;
        let not_finite = |what: &str| BackendError::NotFinite {
            what: what.to_owned(),
            position,
        };
        if !fine {
            return Err(not_finite("the output of the last layer"));
        }
        product(
            weights.crew(),
            1,
            &weights.head,
            &buffers.of_embedding,
            logits,
        );
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
