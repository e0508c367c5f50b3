//! WGSL for matrices times vectors.
//! In: the formats of up to three matrices, their columns, how threads and rows of the batch are shared
//! out. Out: one kernel (rule 4). Every sum is of integers, so how it is cut does not matter to its bits.

use std::fmt::Write as _;

use crate::model::plan::Gate;

use super::kernels::{Input, Profile, prologue, substitute};
use super::unpack::{floats, unpack};
use super::weights::{COLUMNS, Coefficients, Format};

/// Threads of a workgroup whose vectors are in memory.
pub(super) const THREADS: u32 = 64;
/// Threads of one that brings its vector into Q16 first: enough for that to take no longer than the product.
const THREADS_FUSED: u32 = 256;

/// One kernel.
#[derive(Debug, Clone)]
pub(super) struct Product {
    /// Of the matrices, which all have as many columns.
    pub(super) formats: Vec<Format>,
    pub(super) columns: usize,
    /// Threads that share a row.
    pub(super) lanes: u32,
    pub(super) input: Input,
    /// Rows of the batch that a workgroup takes.
    pub(super) tokens: u32,
    pub(super) profile: Profile,
    /// Whether exact sums are of integers of 64 bits.
    pub(super) int64: bool,
    /// The gate of a feed-forward part: the first matrix makes gates, the second ups.
    pub(super) gate: Option<Gate>,
}

/// Parameters of one matrix in a dispatch; `Slot` of the kernel.
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) rows: u32,
    /// Workgroups before the first one of this matrix.
    pub(super) first_group: u32,
    /// Where its values stand in a row of the output.
    pub(super) output_at: u32,
    pub(super) extra: u32,
    pub(super) coefficients: u32,
    pub(super) supers: u32,
    pub(super) exponents: u32,
    pub(super) padding: u32,
}

/// Parameters of a dispatch.
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Params {
    pub(super) slots: [Slot; 3],
    /// Values of a row of the output.
    pub(super) stride: u32,
    /// The word of the batch that says how many rows there are.
    pub(super) count_at: u32,
    /// The stage that a value which is not finite belongs to, where a gate looks for it.
    pub(super) stage: u32,
    /// And one in the vector, where the product brings it into Q16.
    pub(super) input_stage: u32,
    /// Workgroups' worth of rows; where fewer are started, each takes several one after the other.
    pub(super) groups: u32,
    pub(super) padding: [u32; 3],
}

const HEAD: &str = include_str!("wgsl/product.wgsl");

const STORED: &str = include_str!("wgsl/exact/stored.wgsl");

const INT64: &str = include_str!("wgsl/exact/int64.wgsl");

const INT32: &str = include_str!("wgsl/exact/int32.wgsl");

const FLOATS: &str = include_str!("wgsl/fast/product.wgsl");

const STORED_FLOATS: &str = include_str!("wgsl/fast/stored.wgsl");

/// Threads of a workgroup by where its vectors come from.
pub(super) fn threads(input: Input) -> u32 {
    match input {
        Input::Stored => THREADS,
        Input::Values | Input::Normed { .. } => THREADS_FUSED,
    }
}

impl Product {
    /// Rows of a matrix that a workgroup takes.
    pub(super) fn rows_of_group(&self) -> u32 {
        self.threads() / self.lanes
    }

    fn threads(&self) -> u32 {
        threads(self.input)
    }

    /// Bytes that a workgroup needs to share.
    pub(super) fn shared_bytes(&self) -> u32 {
        let outputs = if self.gate.is_some() { 2 } else { 1 };
        // Bytes of a sum, and of a block of the vector.
        let (sum, block) = match self.profile {
            Profile::Exact { .. } => (8, 72),
            Profile::Fast => (4, 128),
        };
        let parts = sum * outputs * self.threads() * self.tokens;
        let vector = match self.input {
            Input::Stored => 0,
            Input::Values | Input::Normed { .. } => {
                sum * self.threads()
                    + u32::try_from(self.columns / COLUMNS * block).unwrap_or(u32::MAX / 2)
            }
        };
        parts + vector
    }

    fn wide(&self) -> &'static str {
        match self.profile {
            Profile::Exact { .. } => wide(self.int64),
            Profile::Fast => "f32",
        }
    }

    pub(super) fn source(&self) -> String {
        let blocks = self.columns / COLUMNS;
        let outputs = if self.gate.is_some() { 2 } else { 1 };
        let parts = outputs * self.threads() * self.tokens;
        let mut source = self.profile.floats();
        source += &substitute(HEAD, &[("BLOCKS", blocks.to_string())]);
        let _ = write!(
            source,
            "const LANES: u32 = {}u;
const TOKENS: u32 = {}u;
var<private> total: array<{wide}, TOKENS>;
var<workgroup> parts: array<{wide}, {parts}>;
",
            self.lanes,
            self.tokens,
            wide = self.wide(),
        );
        let (sums, stored) = match self.profile {
            Profile::Exact { .. } => (sums(self.int64), STORED),
            Profile::Fast => (FLOATS, STORED_FLOATS),
        };
        source += sums;
        if self.input == Input::Stored {
            source += stored;
        }
        source += &prologue(self.profile, self.input, self.columns, self.threads());
        for (index, format) in self.formats.iter().enumerate() {
            match self.profile {
                Profile::Exact { .. } => self.matrix(&mut source, index, *format),
                Profile::Fast => self.matrix_of_floats(&mut source, index, *format),
            }
        }
        if self.gate.is_some() {
            self.gated_main(&mut source);
        } else {
            self.main(&mut source);
        }
        source
    }

    /// The part of the rows' products that a lane sums up.
    fn matrix(&self, out: &mut String, index: usize, format: Format) {
        let zero = if self.int64 { "0li" } else { "vec2<u32>(0u)" };
        let mut sums = String::new();
        let mut carries = String::new();
        for token in 0..self.tokens {
            self.token(&mut sums, format, token);
            let carry = match (self.int64, format.coefficients) {
                (true, _) => continue,
                // The products of high and low bytes.
                (false, Coefficients::One) => format!(
                    "add64(add64(wide_shifted(p3_{token}, 16u), wide_shifted(p2_{token}, 8u)), wide(p0_{token}))"
                ),
                (false, _) => format!(
                    "add64(add64(wide_shifted(p3_{token}, 25u), wide_shifted(p2_{token}, 14u)), add64(wide_shifted(p1_{token}, 11u), wide(p0_{token})))"
                ),
            };
            let _ = writeln!(
                carries,
                "        total[{token}] = add64(total[{token}], {carry});"
            );
        }
        let mut partial = String::new();
        if !self.int64 {
            for token in 0..self.tokens {
                let _ = writeln!(
                    partial,
                    "        var p0_{token} = 0; var p1_{token} = 0; var p2_{token} = 0; var p3_{token} = 0;"
                );
            }
        }
        let clear: String = (0..self.tokens)
            .map(|token| format!("    total[{token}] = {zero};\n"))
            .collect();
        // 32 blocks have at most 64 terms of under 2^25, so 32 bits are enough between the carries.
        let _ = write!(
            out,
            "{binding}
fn product{index}(row: u32, lane: u32, first: u32) {{
{clear}    let slot = params.slots[{index}];
{last}    var block = lane;
    loop {{
        if block >= BLOCKS {{
            break;
        }}
{partial}        for (var turn = 0u; turn < 32u && block < BLOCKS; turn++) {{
            let at = row * BLOCKS + block;
{unpack}{sums}            block += LANES;
        }}
{carries}    }}
}}
",
            binding = binding(index),
            last = self.last(),
            unpack = unpack(index, format),
        );
    }

    /// Reads a token's block of the vectors: high and low bytes, and the sums.
    fn vector(&self, out: &mut String, t: u32) {
        let names = ["ha", "hb", "la", "lb"];
        if self.input == Input::Stored {
            let _ = writeln!(
                out,
                "            let x{t} = (min(first + {t}u, last) * BLOCKS + block) * 5u;"
            );
            for (at, name) in names.iter().enumerate() {
                let _ = writeln!(out, "            let {name}{t} = x[x{t} + {at}u];");
            }
            let _ = writeln!(out, "            let s{t} = x[x{t} + 4u].xy;");
            return;
        }
        let _ = writeln!(out, "            let x{t} = block * 16u;");
        for (at, name) in names.iter().enumerate() {
            let words: Vec<_> = (0..4)
                .map(|word| format!("x_words[x{t} + {}u]", 4 * at + word))
                .collect();
            let _ = writeln!(
                out,
                "            let {name}{t} = vec4<u32>({});",
                words.join(", ")
            );
        }
        let sum = |half| format!("bitcast<u32>(atomicLoad(&x_sums[block * 2u + {half}u]))");
        let _ = writeln!(
            out,
            "            let s{t} = vec2<u32>({}, {});",
            sum(0),
            sum(1)
        );
    }

    /// The last row of the batch, which rows after it stand in for.
    fn last(&self) -> &'static str {
        match self.input {
            Input::Stored => "    let last = batch[params.count_at] - 1u;\n",
            Input::Values | Input::Normed { .. } => "",
        }
    }

    /// As [`Product::matrix`], of dequantized weights.
    fn matrix_of_floats(&self, out: &mut String, index: usize, format: Format) {
        let mut sums = String::new();
        let mut clear = String::new();
        for token in 0..self.tokens {
            let _ = writeln!(clear, "    total[{token}] = 0.0;");
            let (at, from) = match self.input {
                Input::Stored => (
                    "x",
                    format!("(min(first + {token}u, last) * BLOCKS + block)"),
                ),
                Input::Values | Input::Normed { .. } => ("x_words", "block".to_owned()),
            };
            let terms: Vec<_> = (0..8)
                .map(|quad| format!("dot(f{quad}, {at}[x{token} + {quad}u])"))
                .collect();
            let _ = write!(
                sums,
                "        let x{token} = {from} * 8u;
        total[{token}] += {};
",
                terms.join(" + ")
            );
        }
        let _ = write!(
            out,
            "{binding}
fn product{index}(row: u32, lane: u32, first: u32) {{
{clear}    let slot = params.slots[{index}];
{last}    for (var block = lane; block < BLOCKS; block += LANES) {{
        let at = row * BLOCKS + block;
{unpack}{floats}{sums}    }}
}}
",
            binding = binding(index),
            last = self.last(),
            unpack = unpack(index, format),
            floats = floats(format),
        );
    }

    /// What a kernel does before its products, how many rows there are, and the exponent of a vector.
    fn around(&self) -> [&'static str; 3] {
        let fast = matches!(self.profile, Profile::Fast);
        match self.input {
            Input::Stored => [
                "",
                "batch[params.count_at]",
                match fast {
                    true => "0",
                    false => "bitcast<i32>(x[(first + token) * BLOCKS * 5u + 4u].z)",
                },
            ],
            Input::Values | Input::Normed { .. } => [
                "    load(t, group.x);\n",
                "1u",
                if fast { "0" } else { "x_exponent" },
            ],
        }
    }

    /// What a block adds to a token's sum.
    fn token(&self, out: &mut String, format: Format, token: u32) {
        let t = token;
        self.vector(out, token);
        let dot = |weights: &str, plane: &str, quads: std::ops::Range<usize>| {
            let terms = quads.map(|quad| {
                let (half, lane) = (["a", "b"][quad / 4], ["x", "y", "z", "w"][quad % 4]);
                format!("dot4I8Packed({weights}{quad}, {plane}{half}{t}.{lane})")
            });
            terms.collect::<Vec<_>>().join(" + ")
        };
        let full = |weights: &str, quads: std::ops::Range<usize>| {
            format!(
                "(({}) << 8u) + {}",
                dot(weights, "h", quads.clone()),
                dot(weights, "l", quads)
            )
        };
        let mut add = |coefficient: &str, sum: &str| {
            if self.int64 {
                let _ = writeln!(
                    out,
                    "            total[{t}] += i64({coefficient}) * i64({sum});"
                );
            } else {
                let _ = writeln!(
                    out,
                    "            {{ let d = {sum}; let d1 = d >> 14u; let d0 = d & 16383; let c1 = {coefficient} >> 11u; let c0 = {coefficient} & 2047; p3_{t} += d1 * c1; p2_{t} += d1 * c0; p1_{t} += d0 * c1; p0_{t} += d0 * c0; }}"
                );
            }
        };
        let sums = format!("s{t}");
        let biased = |sum: String, of: &str| match format.bias {
            0 => sum,
            bias => format!("{sum} - {bias} * bitcast<i32>({of})"),
        };
        match format.coefficients {
            Coefficients::Scale => {
                let both = format!("({sums}.x + {sums}.y)");
                add("scale", &biased(full("q", 0..8), &both));
            }
            Coefficients::Minimum | Coefficients::SuperMinimum => {
                add("scale", &full("q", 0..8));
                add("minimum", &format!("bitcast<i32>({sums}.x + {sums}.y)"));
            }
            Coefficients::SuperHalves => {
                add("scale", &biased(full("q", 0..4), &format!("{sums}.x")));
                add("scale_last", &biased(full("q", 4..8), &format!("{sums}.y")));
            }
            Coefficients::One => {
                let parts = [
                    dot("q", "h", 0..8),
                    format!("({}) + ({})", dot("q", "l", 0..8), dot("r", "h", 0..8)),
                    dot("r", "l", 0..8),
                ];
                let [high, middle, low] = parts;
                let _ = if self.int64 {
                    writeln!(
                        out,
                        "            total[{t}] += i64({high}) * 65536li + i64({middle}) * 256li + i64({low});"
                    )
                } else {
                    writeln!(
                        out,
                        "            p3_{t} += {high}; p2_{t} += {middle}; p0_{t} += {low};"
                    )
                };
            }
        }
    }

    /// The sum over the lanes of a row for one token, as a float without the exponents.
    fn finish(&self, out: &mut String, name: &str, offset: u32) {
        let (threads, base) = (self.threads(), offset * self.threads() * self.tokens);
        let _ = write!(
            out,
            "        var {name}_sum = parts[{base}u + token * {threads}u + t - lane];
        for (var other = 1u; other < LANES; other++) {{
            {name}_sum = wide_sum({name}_sum, parts[{base}u + token * {threads}u + t - lane + other]);
        }}
"
        );
    }

    fn store(&self, out: &mut String, offset: u32, indent: &str) {
        let (threads, base) = (self.threads(), offset * self.threads() * self.tokens);
        for token in 0..self.tokens {
            let at = base + token * threads;
            let _ = writeln!(out, "{indent}parts[{at}u + t] = total[{token}];");
        }
    }

    fn main(&self, out: &mut String) {
        let mut body = String::new();
        let count = self.formats.len();
        for index in (0..count).rev() {
            let condition = if index == 0 {
                "{".to_owned()
            } else {
                format!("if part >= params.slots[{index}].first_group {{")
            };
            let _ = write!(
                body,
                "{condition}
        let slot = params.slots[{index}];
        row = (part - slot.first_group) * {rows}u + t / LANES;
        rows = slot.rows;
        output_at = slot.output_at;
        let inside = min(row, rows - 1u);
        product{index}(inside, lane, first);
        exponent = bitcast<i32>(word{index}(slot.exponents + inside));
    }}{next}",
                rows = self.rows_of_group(),
                next = if index == 0 { "\n" } else { " else " },
            );
        }
        let mut store = String::new();
        self.store(&mut store, 0, "    ");
        let mut finish = String::new();
        self.finish(&mut finish, "row", 0);
        let (threads, [load, count, exponent]) = (self.threads(), self.around());
        let _ = write!(
            out,
            "
@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) t: u32) {{
    let lane = t % LANES;
    let first = group.y * TOKENS;
    var row = 0u;
    var rows = 0u;
    var output_at = 0u;
    var exponent = 0;
{load}    for (var part = group.x; part < params.groups; part += groups.x) {{
    {body}{store}    workgroupBarrier();
    let count = {count};
    for (var token = lane; token < TOKENS && first + token < count && row < rows; token += LANES) {{
{finish}        let of_x = {exponent};
        y[(first + token) * params.stride + output_at + row] = scale2(to_float(row_sum), exponent + of_x);
    }}
    workgroupBarrier();
    }}
}}
"
        );
    }

    fn gated_main(&self, out: &mut String) {
        let (mut gates, mut ups) = (String::new(), String::new());
        self.store(&mut gates, 0, "    ");
        self.store(&mut ups, 1, "    ");
        let mut finish = String::new();
        self.finish(&mut finish, "gate", 0);
        self.finish(&mut finish, "up", 1);
        let (threads, [load, count, exponent]) = (self.threads(), self.around());
        let status = match self.input {
            Input::Stored => {
                "@group(0) @binding(7) var<storage, read_write> status: array<atomic<u32>>;\n"
            }
            Input::Values | Input::Normed { .. } => "",
        };
        let name = self.gate.map_or("", gate_name);
        let _ = write!(
            out,
            "
{status}
@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) t: u32) {{
    let lane = t % LANES;
    let first = group.y * TOKENS;
    let rows = params.slots[0].rows;
{load}    for (var part = group.x; part < params.groups; part += groups.x) {{
    let row = part * {rows}u + t / LANES;
    let inside = min(row, rows - 1u);
    product0(inside, lane, first);
{gates}    product1(inside, lane, first);
{ups}    workgroupBarrier();
    let gate_exponent = bitcast<i32>(word0(params.slots[0].exponents + inside));
    let up_exponent = bitcast<i32>(word1(params.slots[1].exponents + inside));
    let count = {count};
    for (var token = lane; token < TOKENS && first + token < count && row < rows; token += LANES) {{
{finish}        let of_x = {exponent};
        let gate = scale2(to_float(gate_sum), gate_exponent + of_x);
        let up = scale2(to_float(up_sum), up_exponent + of_x);
        if max(gate & MAGNITUDE, up & MAGNITUDE) >= NOT_FINITE {{
            atomicMin(&status[first + token], params.stage);
        }}
        y[(first + token) * params.stride + params.slots[0].output_at + row] = {name}(gate, up);
    }}
    workgroupBarrier();
    }}
}}
",
            rows = self.rows_of_group(),
        );
    }
}

/// The type of exact sums.
pub(super) fn wide(int64: bool) -> &'static str {
    if int64 { "i64" } else { "vec2<u32>" }
}

/// The source of their operations.
pub(super) fn sums(int64: bool) -> &'static str {
    if int64 { INT64 } else { INT32 }
}

/// What kernels of exact products of stored vectors of so many blocks begin with.
pub(super) fn head(blocks: usize, int64: bool) -> String {
    let head = substitute(HEAD, &[("BLOCKS", blocks.to_string())]);
    [&head, sums(int64), STORED].concat()
}

pub(super) fn gate_name(gate: Gate) -> &'static str {
    match gate {
        Gate::Silu => "silu_gate",
        Gate::GeluTanh => "gelu_gate",
    }
}

/// A matrix's buffer, and how a word of it is read.
pub(super) fn binding(index: usize) -> String {
    format!(
        "
@group(0) @binding({binding}) var<storage, read> w{index}: array<vec4<u32>>;

fn word{index}(at: u32) -> u32 {{
    return w{index}[at >> 2u][at & 3u];
}}
",
        binding = 4 + index
    )
}
