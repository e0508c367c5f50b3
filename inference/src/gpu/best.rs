//! The likeliest tokens of a row of logits, found on the device.
//! In: logits of the rows that want them. Out: of each row the [`BEST`] likeliest tokens in order, which is all
//! that most ways of sampling need: half a kilobyte in place of a vocabulary. It picks none of them.

use wgpu::{Buffer, BufferUsages};

use crate::backend::BackendError;
use crate::model::plan::Plan;
use crate::scheduler::place;

use super::compiler::{Compiler, Count, Op, Use};
use super::kernels::{WANTED_AT, substitute};
use super::model::Buffers;

/// Tokens of a row that come back; a power of two.
pub(super) const BEST: usize = 64;
/// Words of such a token: how its logit orders, and its number.
pub(super) const WORDS: usize = 2;
/// What stands where a row has fewer tokens.
const NOBODY: u32 = u32::MAX;
/// Tokens that a workgroup takes: their keys and numbers fill the 16 KiB that every device's workgroups share.
const SLICE: usize = 2048;
/// Threads of a workgroup, which every device has.
const THREADS: usize = 256;

/// The dispatches that find them.
#[derive(Debug)]
pub(super) struct Best {
    pub(super) ops: Vec<Op>,
    /// Of each row that wants logits [`BEST`] times [`WORDS`] words.
    pub(super) found: Buffer,
}

impl Best {
    /// Each dispatch leaves [`BEST`] of every [`SLICE`] tokens, until one slice was left.
    pub(super) fn new(
        compiler: &mut Compiler,
        plan: &Plan,
        buffers: &Buffers,
    ) -> Result<Self, BackendError> {
        let stage = compiler.stage(8 * plan.layers.len() + place::LOGITS as usize)?;
        let mut ops = Vec::new();
        let mut length = plan.vocabulary();
        let mut from: Option<Buffer> = None;
        loop {
            let groups = length.div_ceil(SLICE);
            let bytes = (buffers.wanted_max * groups * BEST * WORDS * size_of::<u32>()) as u64;
            let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
            let found = compiler.gpu.buffer_for("likely tokens", bytes, usage)?;
            let bound = [
                (0, Use::Read, &buffers.batch),
                (1, Use::Write, &buffers.status),
                (2, Use::Read, from.as_ref().unwrap_or(&buffers.logits)),
                (3, Use::Write, &found),
                (8, Use::Uniform, &stage),
            ];
            let count = Count::Fixed(u32::try_from(groups).unwrap_or(u32::MAX));
            let source = source(length, from.is_none());
            ops.push(compiler.op("likely tokens", source, &bound, [count, Count::Wanted])?);
            if groups == 1 {
                return Ok(Self { ops, found });
            }
            (length, from) = (groups * BEST, Some(found));
        }
    }
}

/// The kernel for rows of so many logits, or of so many tokens that are left of them.
fn source(length: usize, of_logits: bool) -> String {
    let entry = match of_logits {
        // A logit's bits as they order: of negative ones all turned round, of others the sign.
        true => format!(
            "if (value & 0x7fffffffu) >= 0x7f800000u {{
                atomicMin(&status[batch[{WANTED_AT}u + row]], stage.x);
            }}
            let key = select(value | 0x80000000u, ~value, value >= 0x80000000u);
            entry = vec2<u32>(key, first + i);"
        ),
        false => "entry = value;".to_owned(),
    };
    let value = if of_logits { "u32" } else { "vec2<u32>" };
    substitute(
        include_str!("wgsl/best.wgsl"),
        &[
            ("ENTRY", entry),
            ("VALUE", value.to_owned()),
            ("LENGTH", length.to_string()),
            ("SLICE", SLICE.to_string()),
            ("BEST", BEST.to_string()),
            ("WG", THREADS.to_string()),
        ],
    )
}

/// A row's tokens as `sampler::order_key` has them, the likeliest first.
pub(super) fn keys(found: &[u32]) -> Vec<u64> {
    let pairs = found.chunks_exact(WORDS);
    let real = pairs.filter(|pair| pair[1] != NOBODY);
    real.map(|pair| u64::from(!pair[0]) << 32 | u64::from(pair[1]))
        .collect()
}
