//! One step of the scheduler: rows of tokens, which may belong to different sequences, through all layers.
//! In: rows with their positions and pages. Out: keys and values in the pages, and the logits that are wanted.
//! Each phase is shared out in chunks to the pool; every chunk writes memory of its own. A row whose values are not
//! finite is noted and goes on, so that it ends no other's step.

use crate::arithmetic::{NOT_FINITE, magnitude_bits};
use crate::cpu::pool::Parts;
use crate::exact::embed;
use crate::model::plan::{Gate, Plan};
use crate::scheduler::{PAGE, Request, place, stage};
use crate::tokenizer::TokenId;

use super::attention::{self, Block};
use super::cache::Cache;
use super::device::{ROWS_MAX, Rows};
use super::generic::{Groups, rope};
use super::kernels::Quantize;
use super::memory::{Buffers, turns_of_token};
use super::pack::{COLUMNS, ROWS};
use super::phases::{Branch, Norm, product, quantize, shares};
use super::{PackedHeads, PackedLayer, Weights};

/// Row groups of a product that make a block of the next one's activations.
const GROUPS_OF_BLOCK: usize = COLUMNS / ROWS;

/// Chunks of attention that each thread must have before heads share one.
const CHUNKS_TO_SHARE: usize = 4;

/// A step on its way through the layers.
pub(super) struct Step<'a> {
    pub(super) weights: &'a Weights,
    pub(super) cache: &'a mut Cache,
    pub(super) buffers: &'a mut Buffers,
    pub(super) rows: &'a Rows,
}

impl Step<'_> {
    /// Runs it, and writes the logits that requests want into them.
    pub(super) fn run(&mut self, requests: &mut [Request]) {
        let weights = self.weights;
        let tokens = requests.iter().flat_map(|request| request.tokens());
        self.begin(tokens);
        let mut before = Branch::None;
        for (index, layer) in weights.layers.iter().enumerate() {
            self.layer(index, layer, before);
            before = Branch::of(layer.post_feed_forward_norm.as_deref());
        }
        if !self.rows.wanted.is_empty() {
            self.head(before, requests);
        }
    }

    fn n(&self) -> usize {
        self.rows.rows.len()
    }

    /// Embeddings of the rows, and the angles of their positions.
    #[expect(unsafe_code, reason = "each chunk works on its own row")]
    fn begin<'t>(&mut self, tokens: impl Iterator<Item = &'t TokenId>) {
        let (weights, rows, n) = (self.weights, self.rows, self.n());
        let plan = &weights.plan;
        let (length, turns_length) = (plan.embedding_length, turns_of_token(plan));
        let mut of_rows = [TokenId(0); ROWS_MAX];
        for (row, token) in of_rows.iter_mut().zip(tokens) {
            *row = *token;
        }
        let states = Parts::new(&mut self.buffers.states);
        let turns = Parts::new(&mut self.buffers.turns);
        weights.pool.run(n, |row| {
            // SAFETY: chunk `row` takes that row's state and turns and no other.
            let (state, turns) = unsafe {
                (
                    states.part(row * length, length),
                    turns.part(row * turns_length, turns_length),
                )
            };
            embed(plan, &weights.gguf, of_rows[row], state);
            weights.angles.at(rows.rows[row].position, turns);
        });
    }

    fn layer(&mut self, index: usize, layer: &PackedLayer, before: Branch<'_>) {
        let (rows, n) = (self.rows, self.n());
        self.norm(before, &layer.attention_norm, stage(index, place::INPUT));
        self.heads(index, layer);
        self.attend(index);
        let (buffers, weights) = (&mut *self.buffers, self.weights);
        let at = stage(index, place::ATTENTION);
        quantize(
            weights.crew(),
            n,
            &buffers.attended,
            &mut buffers.of_attended,
            |row, finite| rows.note(row, at, finite),
        );
        product(
            weights.crew(),
            n,
            &layer.attention_output,
            &buffers.of_attended,
            &mut buffers.branch,
        );
        let branch = Branch::of(layer.post_attention_norm.as_deref());
        self.norm(
            branch,
            &layer.feed_forward_norm,
            stage(index, place::MIDDLE),
        );
        let at = stage(index, place::FEED_FORWARD);
        self.gate(layer, at);
        let (buffers, weights) = (&mut *self.buffers, self.weights);
        if let Quantize::Vector(_) = weights.kernels.quantize {
            quantize(
                weights.crew(),
                n,
                &buffers.hidden,
                &mut buffers.of_hidden,
                |row, finite| rows.note(row, at, finite),
            );
        }
        product(
            weights.crew(),
            n,
            &layer.down,
            &buffers.of_hidden,
            &mut buffers.branch,
        );
    }

    /// Adds the branch to the states, norms them and quantizes the result.
    #[expect(unsafe_code, reason = "each chunk works on its own token")]
    fn norm(&mut self, added: Branch<'_>, norm: &[f32], stage: u32) {
        let (weights, rows, n) = (self.weights, self.rows, self.n());
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
            rows.note(token, stage, fine);
        });
    }

    /// Queries, keys and values; keys and values go to the cache.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own head; kernels need their CPU"
    )]
    fn heads(&mut self, index: usize, layer: &PackedLayer) {
        let (weights, rows, n) = (self.weights, self.rows, self.n());
        let plan = &weights.plan;
        let (size, groups) = (plan.head_size, plan.head_size / ROWS);
        let buffers = &mut *self.buffers;
        let raw = Parts::new(&mut buffers.heads);
        let queries = Parts::new(&mut buffers.queries);
        let query_exponents = Parts::new(&mut buffers.query_exponents);
        let cache = self.cache.writer();
        let (x, turns) = (&buffers.of_embedding, &buffers.turns);
        let (pairs, rope_index) = (plan.rope_dimensions / 2, plan.layers[index].rope);
        let stage = stage(index, place::HEADS);
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
            // SAFETY: the table is that of a level this CPU has.
            unsafe { (kernels.product)(matrix, head * groups, x, raw) };
            let block = index * plan.kv_heads + head;
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
                    // SAFETY: the table is that of a level this CPU has.
                    unsafe { (kernels.add)(row, &Groups::of(bias)) };
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
                rows.note(token, stage, fine && exponent.is_some());
                let (exponent, position) = (exponent.unwrap_or(0), rows.rows[token].position);
                match kind {
                    Kind::Query => {
                        let at = head * n + token;
                        // SAFETY: a chunk takes its own head's queries.
                        unsafe {
                            queries.part(at * size, size).copy_from_slice(q);
                            query_exponents.part(at, 1)[0] = exponent;
                        }
                    }
                    // SAFETY: a chunk takes its own head's blocks of all pages.
                    Kind::Key => unsafe {
                        cache.key((rows.page_of(token), block), position, (q, exponent));
                    },
                    // SAFETY: as above.
                    Kind::Value => unsafe {
                        cache.value((rows.page_of(token), block), position, (q, exponent));
                    },
                }
            }
        });
    }

    /// Rule 7 for every query head and row.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own heads and rows; kernels need their CPU"
    )]
    fn attend(&mut self, index: usize) {
        let (weights, rows, n) = (self.weights, self.rows, self.n());
        let (plan, cache) = (&weights.plan, &*self.cache);
        let (size, layer) = (plan.head_size, &plan.layers[index]);
        let width = plan.heads * size;
        let Buffers {
            queries,
            query_exponents,
            attended,
            ..
        } = &mut *self.buffers;
        let attended = Parts::new(attended);
        let stage = stage(index, place::SCORES);
        // Query heads of one kv head read the same keys and values, which come once from memory where a chunk has
        // all of them; where that makes too few chunks for the threads, each has one.
        let of_kv_head = plan.heads / plan.kv_heads;
        let shared = plan.kv_heads * rows.spans.len() >= CHUNKS_TO_SHARE * weights.pool.threads();
        let together = if shared { of_kv_head } else { 1 };
        let chunks_of_span = plan.heads / together;
        weights
            .pool
            .run(chunks_of_span * rows.spans.len(), |chunk| {
                let span = rows.spans[chunk / chunks_of_span];
                let first_head = chunk % chunks_of_span * together;
                let (pages, at) = (rows.pages_of(span.first), rows.rows[span.first].position);
                let block = index * plan.kv_heads + first_head / of_kv_head;
                // Pages before the first position that any row sees are left out.
                let begin = layer.first_seen(at) / PAGE;
                let seen = &pages[begin..(at + span.count).div_ceil(PAGE)];
                let blocks: Vec<Block<'_>> =
                    seen.iter().map(|page| cache.block(*page, block)).collect();
                let of_span = span.first..span.first + span.count;
                let heads = first_head..first_head + together;
                let of_chunk = of_span.flat_map(|row| heads.clone().map(move |head| (row, head)));
                let rows_of_chunk = of_chunk.clone().map(|(row, head)| {
                    let position = rows.rows[row].position;
                    let at = head * n + row;
                    attention::Row {
                        query: &queries[at * size..][..size],
                        exponent: query_exponents[at],
                        seen: layer.first_seen(position) - begin * PAGE
                            ..position + 1 - begin * PAGE,
                        // SAFETY: a chunk takes its heads' values of its own rows.
                        out: unsafe { attended.part(row * width + head * size, size) },
                        fine: true,
                    }
                });
                let mut rows_of_chunk: Vec<_> = rows_of_chunk.collect();
                let (scale, mut scratch) = (weights.score_scale, Vec::new());
                // SAFETY: the table is that of a level this CPU has.
                unsafe {
                    (weights.kernels.attend)(&mut rows_of_chunk, &blocks, scale, &mut scratch)
                };
                for ((row, _), of_head) in of_chunk.zip(&rows_of_chunk) {
                    rows.note(row, stage, of_head.fine);
                }
            });
    }

    /// The gated half of the feed-forward part, quantized if its parts can be.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own row groups; kernels need their CPU"
    )]
    fn gate(&mut self, layer: &PackedLayer, stage: u32) {
        let (weights, rows, n) = (self.weights, self.rows, self.n());
        let length = weights.plan.feed_forward_length;
        let buffers = &mut *self.buffers;
        let gates = Parts::new(&mut buffers.gates);
        let ups = Parts::new(&mut buffers.ups);
        let hidden = Parts::new(&mut buffers.hidden);
        let (x, kernels) = (&buffers.of_embedding, &weights.kernels);
        let groups = layer.gate.group_count();
        let (_, share) = shares(&weights.pool, groups);
        // Blocks of two groups stay together; `check_sizes` has made sure that all are whole.
        let share = share.next_multiple_of(GROUPS_OF_BLOCK);
        let writer = buffers.of_hidden.begin(n);
        weights.pool.run(groups.div_ceil(share), |chunk| {
            let first = chunk * share;
            let count = share.min(groups - first);
            let (at, values) = (first * n * ROWS, count * n * ROWS);
            // SAFETY: chunk `chunk` takes the values of its own groups.
            let (gates, ups) = unsafe { (gates.part(at, values), ups.part(at, values)) };
            // SAFETY: the table is that of a level this CPU has.
            unsafe {
                (kernels.product)(&layer.gate, first, x, gates);
                (kernels.product)(&layer.up, first, x, ups);
            }
            match weights.plan.gate {
                // SAFETY: the table is that of a level this CPU has.
                Gate::Silu => unsafe { (kernels.silu_gate)(gates, ups) },
                // SAFETY: as above.
                Gate::GeluTanh => unsafe { (kernels.gelu_gate)(gates, ups) },
            }
            let (rows_of_groups, _) = ups.as_chunks::<ROWS>();
            match kernels.quantize {
                Quantize::Vector(_) => {
                    for (row, values) in rows_of_groups.iter().enumerate() {
                        let (group, token) = (first + row / n, row % n);
                        // SAFETY: these are the group's own columns of the token's row.
                        let out = unsafe { hidden.part(token * length + group * ROWS, ROWS) };
                        out.copy_from_slice(values);
                    }
                }
                Quantize::Blocks(quantize) => {
                    let blocks = rows_of_groups.chunks_exact(GROUPS_OF_BLOCK * n);
                    for (block, of_block) in (first / GROUPS_OF_BLOCK..).zip(blocks) {
                        let (low, high) = of_block.split_at(n);
                        for (token, (low, high)) in low.iter().zip(high).enumerate() {
                            let mut values = [0.0; COLUMNS];
                            let (start, end) = values.split_at_mut(ROWS);
                            start.copy_from_slice(low);
                            end.copy_from_slice(high);
                            // SAFETY: the table is that of a level this CPU has; these are the chunk's
                            // own blocks.
                            let fine = unsafe { quantize(&writer, (token, block), &values) };
                            rows.note(token, stage, fine);
                        }
                    }
                }
            }
        });
    }

    /// The logits of the rows that want them.
    #[expect(
        unsafe_code,
        reason = "each chunk works on its own row or row groups; kernels need their CPU"
    )]
    fn head(&mut self, added: Branch<'_>, requests: &mut [Request]) {
        let (weights, rows, n) = (self.weights, self.rows, self.n());
        let (plan, wanted) = (&weights.plan, &rows.wanted[..]);
        let (length, vocabulary) = (plan.embedding_length, plan.vocabulary());
        let layers = plan.layers.len();
        let buffers = &mut *self.buffers;
        let states = Parts::new(&mut buffers.states);
        let normed = Parts::new(&mut buffers.normed);
        let branch = &buffers.branch;
        let writer = buffers.of_embedding.begin(wanted.len());
        let norm = Norm {
            weights,
            added,
            norm: &weights.output_norm,
        };
        let output = stage(layers, place::OUTPUT);
        weights.pool.run(wanted.len(), |index| {
            let token = wanted[index];
            // SAFETY: each wanted row is another one, and a chunk takes its own.
            let state = unsafe { states.part(token * length, length) };
            // SAFETY: as above.
            let normed = unsafe { normed.part(token * length, length) };
            let groups = Groups {
                values: branch,
                n,
                token,
            };
            // SAFETY: only this chunk writes this row.
            let fine = unsafe { norm.token(state, &groups, normed, (&writer, index)) };
            rows.note(token, output, fine);
        });
        let mut logits: Vec<&mut [f32]> = requests
            .iter_mut()
            .flat_map(|request| request.logits_mut(vocabulary).chunks_exact_mut(vocabulary))
            .collect();
        let (crew, x) = (weights.crew(), &buffers.of_embedding);
        match &mut logits[..] {
            [logits] => product(crew, 1, &weights.head, x, logits),
            several => {
                let outs: Vec<_> = several.iter_mut().map(|row| Parts::new(row)).collect();
                let groups = weights.head.group_count();
                let (chunks, share) = shares(&weights.pool, groups);
                weights.pool.run(chunks, |chunk| {
                    let mut of_group = [0.0; ROWS * ROWS_MAX];
                    let of_group = &mut of_group[..ROWS * outs.len()];
                    for group in chunk * share..groups.min((chunk + 1) * share) {
                        // SAFETY: the table is that of a level this CPU has.
                        unsafe { (weights.kernels.product)(&weights.head, group, x, of_group) };
                        let (at, count) = (group * ROWS, ROWS.min(vocabulary - group * ROWS));
                        for (out, values) in outs.iter().zip(of_group.as_chunks::<ROWS>().0) {
                            // SAFETY: a chunk takes the tokens of its own groups.
                            let out = unsafe { out.part(at, count) };
                            out.copy_from_slice(&values[..count]);
                        }
                    }
                });
            }
        }
        let at = stage(layers, place::LOGITS);
        let logits: &[&mut [f32]] = &logits;
        weights.pool.run(wanted.len(), |index| {
            let finite = magnitude_bits(&*logits[index]) < NOT_FINITE;
            rows.note(wanted[index], at, finite);
        });
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
