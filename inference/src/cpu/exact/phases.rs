//! What the phases of a step share: products, norms and quantizing, shared out to the pool.
//! In: packed matrices, the step's buffers. Out: values in those buffers, or which token is not finite.
//! Each chunk writes memory of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::BackendError;
use crate::cpu::pool::{Parts, Pool};

use super::Weights;
use super::activations::{Activations, Writer};
use super::generic::Groups;
use super::kernels::Kernels;
use super::pack::{Packed, ROWS};

/// Chunks of a product for each thread: so many that a late thread holds nobody up for long.
const CHUNKS_PER_THREAD: usize = 4;

/// Collects the first token whose vector is not finite.
pub(super) struct Finite(AtomicUsize);

impl Finite {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }

    pub(super) fn note(&self, token: usize, finite: bool) {
        if !finite {
            self.0.fetch_min(token, Ordering::Relaxed);
        }
    }

    pub(super) fn check(
        self,
        position: usize,
        what: impl FnOnce() -> String,
    ) -> Result<(), BackendError> {
        match self.0.into_inner() {
            usize::MAX => Ok(()),
            token => Err(BackendError::NotFinite {
                what: what(),
                position: position + token,
            }),
        }
    }
}

/// What the last product has left to be added to the states.
#[derive(Clone, Copy)]
pub(super) enum Branch<'a> {
    /// Nothing, before the first layer.
    None,
    /// As it is.
    Plain,
    /// Normed with these weights.
    Normed(&'a [f32]),
}

impl<'a> Branch<'a> {
    pub(super) fn of(norm: Option<&'a [f32]>) -> Self {
        norm.map_or(Self::Plain, Self::Normed)
    }
}

/// Adds a branch to states, norms them and quantizes the result.
pub(super) struct Norm<'a> {
    pub(super) weights: &'a Weights,
    pub(super) added: Branch<'a>,
    /// Of the norm that follows the addition.
    pub(super) norm: &'a [f32],
}

impl Norm<'_> {
    /// One token: its state, its part of the branch, room for its normed state, its place in `writer`.
    /// `false` if a value is not finite.
    ///
    /// # Safety
    /// No other thread may write this token to `writer` at the time.
    #[expect(
        unsafe_code,
        reason = "kernels need their CPU, and the writer's promise is the caller's"
    )]
    pub(super) unsafe fn token(
        &self,
        state: &mut [f32],
        branch: &Groups<'_>,
        normed: &mut [f32],
        (writer, token): (&Writer<'_>, usize),
    ) -> bool {
        let (kernels, eps) = (&self.weights.kernels, self.weights.norm_epsilon);
        if !matches!(self.added, Branch::None) {
            let mut branch = *branch;
            if let Branch::Normed(weights) = self.added {
                branch.copy_to(normed);
                // SAFETY: the table is that of a level this CPU has.
                if !unsafe { (kernels.norm)(normed, weights, eps) } {
                    return false;
                }
                branch = Groups::of(normed);
            }
            // SAFETY: the table is that of a level this CPU has.
            unsafe { (kernels.add)(state, &branch) };
        }
        normed.copy_from_slice(state);
        // SAFETY: the table is that of a level this CPU has; the caller keeps tokens apart.
        unsafe {
            (kernels.norm)(normed, self.norm, eps) && kernels.quantize.whole(writer, token, normed)
        }
    }
}

/// Who does the work: threads, and kernels that their CPU has.
#[derive(Clone, Copy)]
pub(super) struct Crew<'a> {
    pub(super) pool: &'a Pool,
    pub(super) kernels: &'a Kernels,
}

/// How many chunks of how many groups.
pub(super) fn shares(pool: &Pool, groups: usize) -> (usize, usize) {
    let share = groups.div_ceil(pool.threads() * CHUNKS_PER_THREAD).max(1);
    (groups.div_ceil(share), share)
}

/// A matrix times all tokens: `out` is `[row group][n][16]`, without the padding of the last group if
/// there is one token.
#[expect(
    unsafe_code,
    reason = "each chunk works on its own row groups; kernels need their CPU"
)]
pub(super) fn product(crew: Crew<'_>, n: usize, matrix: &Packed, x: &Activations, out: &mut [f32]) {
    let groups = matrix.group_count();
    let (chunks, share) = shares(crew.pool, groups);
    let length = out.len();
    let out = Parts::new(out);
    crew.pool.run(chunks, |chunk| {
        let (first, last) = (chunk * share, groups.min((chunk + 1) * share));
        let (at, end) = (first * n * ROWS, length.min(last * n * ROWS));
        // SAFETY: chunk `chunk` takes the values of its own groups.
        let part = unsafe { out.part(at, end - at) };
        let whole = part.len() / (n * ROWS);
        let (part, rest) = part.split_at_mut(whole * n * ROWS);
        // SAFETY: the table is that of a level this CPU has.
        unsafe { (crew.kernels.product)(matrix, first, x, part) };
        if !rest.is_empty() {
            let mut padded = [0.0; ROWS];
            // SAFETY: as above.
            unsafe { (crew.kernels.product)(matrix, first + whole, x, &mut padded) };
            rest.copy_from_slice(&padded[..rest.len()]);
        }
    });
}

/// Quantizes the vectors of all tokens, and notes of each whether it is finite.
#[expect(
    unsafe_code,
    reason = "each chunk works on its own token; kernels need their CPU"
)]
pub(super) fn quantize(
    crew: Crew<'_>,
    n: usize,
    values: &[f32],
    out: &mut Activations,
    note: impl Fn(usize, bool) + Sync,
) {
    let writer = out.begin(n);
    let length = writer.columns();
    crew.pool.run(n, |token| {
        let values = &values[token * length..][..length];
        // SAFETY: the table is that of a level this CPU has; only this chunk writes this token.
        note(token, unsafe {
            crew.kernels.quantize.whole(&writer, token, values)
        });
    });
}
