//! WGSL for everything but products.
//! In: a profile and a plan's sizes. Out: the sources of kernels, which `wgsl/` has with `$NAMES` where sizes go.

use crate::exact::ScoreScale;
use crate::model::plan::{Plan, RopePairs};

use super::device::Gpu;
use crate::scheduler::PAGE;

/// Threads of a workgroup; at least half the largest head.
const THREADS: usize = 128;
/// Rows of the largest batch.
pub(super) const ROWS_MAX: usize = 256;
/// Where rows, wanted rows and pages begin in a batch, in words.
pub(super) const ROWS_AT: usize = 4;
pub(super) const WANTED_AT: usize = ROWS_AT + 2 * ROWS_MAX;
pub(super) const PAGES_AT: usize = WANTED_AT + ROWS_MAX;

/// Threads of attention: more than a head has values, so that long contexts take less time.
const THREADS_OF_ATTENTION: usize = 256;
/// Threads of a norm whose sums must have the order of a product's that norms by itself.
const THREADS_OF_FLOAT_NORM: usize = 256;
const BATCH: &str = include_str!("wgsl/batch.wgsl");
const SUBGROUPS: &str = include_str!("wgsl/subgroups.wgsl");

/// Which arithmetic a model on a GPU runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `docs/exact-arithmetic.md`: the bits of every other device.
    Exact {
        /// Whether sums and products are the device's own; else they are made of integers.
        native: bool,
        /// Whether sums and maxima of a workgroup go by subgroups.
        subgroups: bool,
    },
    /// f32, whose bits are the device's own; never by subgroups, whose sums of floats have no order.
    Fast,
}

/// The sources of a profile, which both put together in the same way.
#[derive(Debug)]
pub(super) struct Texts {
    floats: [&'static str; 2],
    /// A workgroup's sums and maxima: through its memory, by subgroups if at all, and what is made of them.
    groups: [&'static str; 3],
    cache: &'static str,
    norm: &'static str,
    norm_plain: &'static str,
    norm_post: &'static str,
    prepare: &'static str,
    heads_norm: &'static str,
    heads: &'static str,
    attend: &'static str,
    attend_stored: &'static str,
    attend_fused: &'static str,
    prologue: &'static str,
    prologue_values: &'static str,
    prologue_norm: &'static str,
    prologue_post: &'static str,
    /// After a norm, for what writes vectors.
    write: &'static str,
}

macro_rules! texts {
    ($folder:literal, $floats:expr, $subgroups:expr, $write:expr) => {
        Texts {
            floats: $floats,
            groups: [
                include_str!(concat!("wgsl/", $folder, "groups_memory.wgsl")),
                $subgroups,
                include_str!(concat!("wgsl/", $folder, "groups.wgsl")),
            ],
            cache: include_str!(concat!("wgsl/", $folder, "cache.wgsl")),
            norm: include_str!(concat!("wgsl/", $folder, "norm.wgsl")),
            norm_plain: include_str!(concat!("wgsl/", $folder, "norm_plain.wgsl")),
            norm_post: include_str!(concat!("wgsl/", $folder, "norm_post.wgsl")),
            prepare: include_str!(concat!("wgsl/", $folder, "prepare.wgsl")),
            heads_norm: include_str!(concat!("wgsl/", $folder, "heads_norm.wgsl")),
            heads: include_str!(concat!("wgsl/", $folder, "heads.wgsl")),
            attend: include_str!(concat!("wgsl/", $folder, "attend.wgsl")),
            attend_stored: include_str!(concat!("wgsl/", $folder, "attend_stored.wgsl")),
            attend_fused: include_str!(concat!("wgsl/", $folder, "attend_fused.wgsl")),
            prologue: include_str!(concat!("wgsl/", $folder, "prologue.wgsl")),
            prologue_values: include_str!(concat!("wgsl/", $folder, "prologue_values.wgsl")),
            prologue_norm: include_str!(concat!("wgsl/", $folder, "prologue_norm.wgsl")),
            prologue_post: include_str!(concat!("wgsl/", $folder, "prologue_post.wgsl")),
            write: $write,
        }
    };
}

const FLOAT: &str = include_str!("wgsl/exact/float.wgsl");
const BY_SUBGROUPS: &str = include_str!("wgsl/exact/groups_subgroup.wgsl");
const INTEGERS: &str = include_str!("wgsl/exact/float_integers.wgsl");
const NATIVE: &str = include_str!("wgsl/exact/float_native.wgsl");
const WRITE: &str = include_str!("wgsl/exact/write_q16.wgsl");

static OF_INTEGERS: Texts = texts!("exact/", [FLOAT, INTEGERS], BY_SUBGROUPS, WRITE);
static OF_NATIVE: Texts = texts!("exact/", [FLOAT, NATIVE], BY_SUBGROUPS, WRITE);
static FAST: Texts = texts!("fast/", [include_str!("wgsl/fast/floats.wgsl"), ""], "", "");

impl Profile {
    /// The exact profile as a device is to compute it.
    pub(super) fn exact(gpu: &Gpu) -> Self {
        Self::Exact {
            native: gpu.native_floats(),
            subgroups: gpu.subgroups(),
        }
    }

    /// The same on a device that was opened in another's place.
    pub(super) fn on(self, gpu: &Gpu) -> Self {
        match self {
            Self::Exact { .. } => Self::exact(gpu),
            Self::Fast => Self::Fast,
        }
    }

    fn texts(self) -> &'static Texts {
        match self {
            Self::Exact { native: false, .. } => &OF_INTEGERS,
            Self::Exact { native: true, .. } => &OF_NATIVE,
            Self::Fast => &FAST,
        }
    }

    /// The float operations.
    pub(super) fn floats(self) -> String {
        self.texts().floats.concat()
    }

    /// A sum of two values, in its arithmetic.
    fn sum(self, a: &str, b: &str) -> String {
        match self {
            Self::Exact { .. } => format!("f_add({a}, {b})"),
            Self::Fast => format!("{a} + {b}"),
        }
    }

    /// A workgroup's sums and maxima.
    pub(super) fn groups(self) -> String {
        let [memory, by_subgroups, common] = self.texts().groups;
        match self {
            Self::Exact {
                subgroups: true, ..
            } => [SUBGROUPS, by_subgroups, common].concat(),
            _ => [memory, common].concat(),
        }
    }
}

/// Tells a kernel's threads where they stand in subgroups, if its source asks for that.
pub(super) fn with_subgroups(source: String) -> String {
    const THREAD: &str = "@builtin(local_invocation_index) t: u32) {";
    if !source.contains(SUBGROUPS) {
        return source;
    }
    let with = "@builtin(local_invocation_index) t: u32, @builtin(subgroup_id) subgroup_: u32, @builtin(num_subgroups) subgroups_: u32, @builtin(subgroup_invocation_id) place_: u32) {
    subgroup = subgroup_;
    subgroups = subgroups_;
    subgroup_place = place_;";
    let placed = source.replace(THREAD, with);
    debug_assert!(
        placed != source,
        "no thread of this kernel is told its place"
    );
    placed
}

/// Puts values where a source has `$NAMES`; longer names first, since one may begin another.
pub(super) fn substitute(source: &str, values: &[(&str, String)]) -> String {
    let mut order: Vec<_> = values.iter().collect();
    order.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut out = source.to_owned();
    for (name, value) in order {
        out = out.replace(&format!("${name}"), value);
    }
    out
}

/// What a norm adds to the states first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Add {
    Nothing,
    Branch,
    /// The branch, after a norm of its own.
    Normed,
}

/// Where a product has its vectors from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// From memory, in Q16.
    Stored,
    /// The product brings the values of a step's only row into Q16 itself.
    Values,
    /// It adds to the states of that row and norms them, too.
    Normed {
        add: Add,
        /// Bits of the norm's epsilon.
        epsilon: u32,
    },
}

/// The sizes that all kernels of a plan share.
fn sizes(plan: &Plan) -> Vec<(&'static str, String)> {
    vec![
        ("WG", THREADS.to_string()),
        ("WANTED_AT", WANTED_AT.to_string()),
        ("PAGES_AT", PAGES_AT.to_string()),
        ("EPS", plan.norm_epsilon.to_bits().to_string()),
        ("PAGE", PAGE.to_string()),
        ("HEADS", plan.heads.to_string()),
        ("HEAD", plan.head_size.to_string()),
        ("HALF_LENGTH", (plan.head_size / 2).to_string()),
        ("KV", plan.kv_heads.to_string()),
    ]
}

/// The start of a product of a step's only row, for workgroups of so many threads: `load(t, group)` leaves the
/// vector where the product reads it.
pub(super) fn prologue(profile: Profile, input: Input, columns: usize, threads: u32) -> String {
    let texts = profile.texts();
    let blocks = columns / 32;
    let words = 8 * blocks;
    // A word of four values: four of a thread's own, or a vector.
    let of_word = match profile {
        Profile::Exact { .. } => "[word * 4u + i]",
        Profile::Fast => "[word]",
    };
    let (states, branch) = (format!("states{of_word}"), format!("branch{of_word}"));
    let (load, first) = match input {
        Input::Stored => return String::new(),
        Input::Values => (texts.prologue_values, String::new()),
        Input::Normed { add, .. } => (
            texts.prologue_norm,
            match add {
                Add::Nothing => states,
                Add::Branch => profile.sum(&states, &branch),
                Add::Normed => branch,
            },
        ),
    };
    let (post, epsilon) = match input {
        Input::Normed { add, epsilon } => {
            let post = matches!(add, Add::Normed);
            (post.then_some(texts.prologue_post), epsilon)
        }
        _ => (None, 0),
    };
    let source = [&profile.groups(), texts.prologue, load].concat();
    let x_words = match profile {
        Profile::Exact { .. } => 16 * blocks,
        Profile::Fast => words,
    };
    let values = [
        ("WG", threads.to_string()),
        ("MINE", (4 * words.div_ceil(threads as usize)).to_string()),
        ("X_WORDS", x_words.to_string()),
        ("X_SUMS", (2 * blocks).to_string()),
        ("FIRST_VALUE", first),
        ("EPS", epsilon.to_string()),
    ];
    substitute(&source.replace("$ADD", post.unwrap_or_default()), &values)
}

fn assemble(profile: Profile, parts: &[&str], values: Vec<(&'static str, String)>) -> String {
    let source = [BATCH, &profile.groups(), &parts.concat()].concat();
    profile.floats() + &substitute(&source, &values)
}

/// Norm of the states; of the wanted rows only, or of all.
pub(super) fn norm(profile: Profile, plan: &Plan, add: Add, wanted_only: bool) -> String {
    let texts = profile.texts();
    let add = match add {
        Add::Nothing => "",
        Add::Branch => texts.norm_plain,
        Add::Normed => texts.norm_post,
    };
    let row = match wanted_only {
        true => "batch[WANTED_AT + group.x]",
        false => "group.x",
    };
    let source = texts.norm.replace("$ADD", add);
    let mut values = sizes(plan);
    if matches!(profile, Profile::Fast) {
        set_threads(&mut values, THREADS_OF_FLOAT_NORM);
    }
    values.extend([
        ("N", plan.embedding_length.to_string()),
        ("ROW", row.to_owned()),
        ("VALUES", "normed".to_owned()),
    ]);
    assemble(profile, &[&source, texts.write], values)
}

/// Q16 of vectors of `length` values.
pub(super) fn quantize(profile: Profile, plan: &Plan, length: usize) -> String {
    let mut values = sizes(plan);
    values.extend([("N", length.to_string()), ("VALUES", "values".to_owned())]);
    let source = include_str!("wgsl/exact/quantize.wgsl");
    assemble(profile, &[source, WRITE], values)
}

/// What a layer's heads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    /// Of queries, of keys.
    pub(super) normed: [bool; 2],
    pub(super) biased: bool,
    pub(super) rope: usize,
}

/// The values of `prepare.wgsl`, and its source for heads of a kind.
fn prepare(profile: Profile, plan: &Plan, heads: Heads) -> (String, Vec<(&'static str, String)>) {
    let texts = profile.texts();
    let pairs = plan.rope_dimensions / 2;
    let (first, second) = match plan.rope_pairs {
        RopePairs::Adjacent => ("2u * i", "2u * i + 1u"),
        RopePairs::Halves => ("i", "i + PAIRS"),
    };
    let biased = match heads.biased {
        true => profile.sum("raw[at + i]", "weights[2u * HEAD + head * HEAD + i]"),
        false => "raw[at + i]".to_owned(),
    };
    let normed = match heads.normed {
        [false, false] => None,
        [true, false] => Some("head < HEADS"),
        [false, true] => Some("head >= HEADS && head < HEADS + KV"),
        [true, true] => Some("head < HEADS + KV"),
    };
    let norm = normed.map_or(String::new(), |which| {
        texts.heads_norm.replace("$NORMED", which)
    });
    let source = texts.prepare.replace("$NORM", &norm);
    let mut values = sizes(plan);
    values.extend([
        ("PAIRS", pairs.to_string()),
        ("FIRST", first.to_owned()),
        ("SECOND", second.to_owned()),
        ("BIASED", biased),
        ("TURNS", (plan.ropes.len() * 2 * pairs).to_string()),
        ("TURN_AT", (heads.rope * 2 * pairs).to_string()),
    ]);
    (source, values)
}

/// From products to queries and the cache.
pub(super) fn heads(profile: Profile, plan: &Plan, heads: Heads) -> String {
    let texts = profile.texts();
    let (source, mut values) = prepare(profile, plan, heads);
    if matches!(profile, Profile::Fast) {
        // As where attention makes them, so that their sums have the same order.
        set_threads(&mut values, THREADS_OF_ATTENTION);
    }
    assemble(profile, &[&source, texts.heads, texts.cache], values)
}

/// Attention, with a sliding window or without; of heads that are in memory.
pub(super) fn attend(profile: Profile, plan: &Plan, window: Option<usize>) -> String {
    let texts = profile.texts();
    let mut values = sizes(plan);
    values.extend(scores(plan, window));
    set_threads(&mut values, THREADS_OF_ATTENTION);
    let parts = [texts.attend_stored, texts.attend, texts.cache];
    assemble(profile, &parts, values)
}

/// Attention of a step's only row, from what the product of its heads gave.
pub(super) fn attend_fused(
    profile: Profile,
    plan: &Plan,
    heads: Heads,
    window: Option<usize>,
) -> String {
    let texts = profile.texts();
    let (source, mut values) = prepare(profile, plan, heads);
    values.extend(scores(plan, window));
    set_threads(&mut values, THREADS_OF_ATTENTION);
    let parts = [&source, texts.attend_fused, texts.attend, texts.cache];
    assemble(profile, &parts, values)
}

/// Gives a kernel another number of threads than the others have.
fn set_threads(values: &mut Vec<(&'static str, String)>, threads: usize) {
    values.retain(|(name, _)| *name != "WG");
    values.push(("WG", threads.to_string()));
}

/// What attention sees, and how its scores are scaled.
fn scores(plan: &Plan, window: Option<usize>) -> [(&'static str, String); 3] {
    let first = match window {
        None => "0u".to_owned(),
        Some(window) => {
            format!("select(0u, position + 1u - {window}u, position + 1u > {window}u)")
        }
    };
    let scale = ScoreScale::of(plan.score_length);
    let score = match scale {
        ScoreScale::Power(power) => {
            format!("scale2(dot, query_exponent + key_exponent - {power})")
        }
        ScoreScale::Factor(factor) => format!(
            "f_mul(scale2(dot, query_exponent + key_exponent), {}u)",
            factor.to_bits()
        ),
    };
    [
        ("FIRST_SEEN", first),
        ("SCORE", score),
        ("SCALE", scale.factor().to_bits().to_string()),
    ]
}
