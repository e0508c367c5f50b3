//! WGSL for matrices times many vectors: tiles of rows and vectors that share what they read.
//! In: the formats of up to three matrices, and how large a tile is. Out: one kernel of the exact profile
//! (rule 4), for vectors that are in memory. Sums are of integers, so the bits are those of [`super::product`].

use std::fmt::Write as _;

use crate::model::plan::Gate;

use super::kernels::{Profile, substitute};
use super::product::{binding, gate_name, head, wide};
use super::unpack::unpack;
use super::weights::{COLUMNS, Coefficients, Format};

/// Rows of the batch, and rows of a matrix, that a thread takes.
const OF_THREAD: u32 = 4;

/// How threads share a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Threads along the batch.
    pub(super) tokens: u32,
    /// And along the matrix.
    pub(super) rows: u32,
}

impl Shape {
    /// For few rows of the batch, such as those of sessions that generate.
    pub(super) const NARROW: Self = Self {
        tokens: 4,
        rows: 16,
    };
    /// For prompts.
    pub(super) const SQUARE: Self = Self {
        tokens: 16,
        rows: 16,
    };

    /// Rows of the batch that a workgroup takes.
    pub(super) fn tokens(self) -> u32 {
        OF_THREAD * self.tokens
    }

    /// Rows of a matrix that it takes.
    pub(super) fn rows(self) -> u32 {
        OF_THREAD * self.rows
    }

    /// Threads of a workgroup; as many as a tile has rows at least, since each stages one.
    pub(super) fn threads(self) -> u32 {
        self.tokens * self.rows
    }

    /// Bytes that a workgroup shares, at most.
    pub(super) fn shared_bytes(self) -> u32 {
        self.rows() * (4 * 16 + 8) + self.tokens() * 5 * 16
    }
}

/// One kernel.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    pub(super) formats: Vec<Format>,
    pub(super) columns: usize,
    pub(super) shape: Shape,
    /// The exact one.
    pub(super) profile: Profile,
    pub(super) int64: bool,
    pub(super) gate: Option<Gate>,
}

impl Tile {
    pub(super) fn source(&self) -> String {
        let quads = self.formats.iter().map(|format| quads(*format)).max();
        let quads = quads.unwrap_or(2);
        let shape = self.shape;
        let mut source = self.profile.floats();
        source += &head(self.columns / COLUMNS, self.int64);
        let values = [
            ("ROWS", shape.rows().to_string()),
            ("TOKENS", shape.tokens().to_string()),
            ("TT", shape.tokens.to_string()),
            ("TR", shape.rows.to_string()),
            ("QUADS", quads.to_string()),
            ("ALL_QUADS", (quads * shape.rows()).to_string()),
            ("ALL_VECTORS", (5 * shape.tokens()).to_string()),
        ];
        source += &substitute(include_str!("wgsl/exact/tile.wgsl"), &values);
        let _ = writeln!(
            source,
            "var<private> total: array<{}, {}>;",
            wide(self.int64),
            OF_THREAD * OF_THREAD
        );
        for (index, format) in self.formats.iter().enumerate() {
            self.matrix(&mut source, index, *format);
        }
        match self.gate {
            Some(gate) => self.gated_main(&mut source, gate),
            None => self.main(&mut source),
        }
        source
    }

    /// Sums up a thread's rows of one matrix for its rows of the batch.
    fn matrix(&self, out: &mut String, index: usize, format: Format) {
        let sixteen = format.coefficients == Coefficients::One;
        let vector = |of: &str| {
            let words = |from: usize| {
                let words: Vec<_> = (from..from + 4).map(|k| format!("{of}{k}")).collect();
                format!("vec4<u32>({})", words.join(", "))
            };
            [words(0), words(4)]
        };
        let mut staged = String::new();
        let planes = if sixteen { &["q", "r"][..] } else { &["q"] };
        for (at, value) in planes.iter().flat_map(|of| vector(of)).enumerate() {
            let _ = writeln!(staged, "    tile_weights[to * QUADS + {at}u] = {value};");
        }
        let coefficients = match format.coefficients {
            Coefficients::One => "0, 0",
            Coefficients::Scale => "scale, 0",
            Coefficients::Minimum | Coefficients::SuperMinimum => "scale, minimum",
            Coefficients::SuperHalves => "scale, scale_last",
        };
        let (mut rows, mut sums) = (String::new(), String::new());
        for row in 0..OF_THREAD {
            let _ = writeln!(
                rows,
                "        let at{row} = tr + {row}u * TR;
        let wa{row} = tile_weights[at{row} * QUADS];
        let wb{row} = tile_weights[at{row} * QUADS + 1u];
        let c{row} = tile_coefficients[at{row}];"
            );
            if sixteen {
                let _ = writeln!(
                    rows,
                    "        let ra{row} = tile_weights[at{row} * QUADS + 2u];
        let rb{row} = tile_weights[at{row} * QUADS + 3u];"
                );
            }
            self.term(&mut sums, format, row);
        }
        let zero = if self.int64 { "0li" } else { "vec2<u32>(0u)" };
        let _ = write!(
            out,
            "{binding}
fn stage{index}(row: u32, block: u32, to: u32) {{
    let slot = params.slots[{index}];
    let at = row * BLOCKS + block;
{unpack}{staged}    tile_coefficients[to] = vec2<i32>({coefficients});
}}

fn tile{index}(t: u32, row0: u32, first: u32) {{
    let tt = t % TT;
    let tr = t / TT;
    let last = batch[params.count_at] - 1u;
    let rows = params.slots[{index}].rows;
    for (var i = 0u; i < {totals}u; i++) {{
        total[i] = {zero};
    }}
    for (var block = 0u; block < BLOCKS; block++) {{
        workgroupBarrier();
        if t < {tile_rows}u {{
            stage{index}(min(row0 + t, rows - 1u), block, t);
        }}
        stage_vectors(t, block, first, last);
        workgroupBarrier();
{rows}        for (var token = 0u; token < {OF_THREAD}u; token++) {{
            let vector_at = (tt + token * TT) * 5u;
            let ha = tile_vectors[vector_at];
            let hb = tile_vectors[vector_at + 1u];
            let la = tile_vectors[vector_at + 2u];
            let lb = tile_vectors[vector_at + 3u];
            let s = bitcast<vec2<i32>>(tile_vectors[vector_at + 4u].xy);
            let k = token * {OF_THREAD}u;
{sums}        }}
    }}
}}
",
            binding = binding(index),
            unpack = unpack(index, format),
            totals = OF_THREAD * OF_THREAD,
            tile_rows = self.shape.rows(),
        );
    }

    /// What a block adds to the sum of one row.
    fn term(&self, out: &mut String, format: Format, row: u32) {
        let full = |half: &str| {
            format!("(dot16(w{half}{row}, h{half}) << 8u) + dot16(w{half}{row}, l{half})")
        };
        let both = format!(
            "((dot16(wa{row}, ha) + dot16(wb{row}, hb)) << 8u) + dot16(wa{row}, la) + dot16(wb{row}, lb)"
        );
        let biased = |sum: String, of: &str| match format.bias {
            0 => sum,
            bias => format!("{sum} - {bias} * {of}"),
        };
        let terms = match format.coefficients {
            Coefficients::Scale => vec![(format!("c{row}.x"), biased(both, "(s.x + s.y)"))],
            Coefficients::Minimum | Coefficients::SuperMinimum => vec![
                (format!("c{row}.x"), both),
                (format!("c{row}.y"), "s.x + s.y".to_owned()),
            ],
            Coefficients::SuperHalves => vec![
                (format!("c{row}.x"), biased(full("a"), "s.x")),
                (format!("c{row}.y"), biased(full("b"), "s.y")),
            ],
            Coefficients::One => {
                let middle = format!(
                    "dot16(wa{row}, la) + dot16(wb{row}, lb) + dot16(ra{row}, ha) + dot16(rb{row}, hb)"
                );
                vec![
                    (
                        "65536".to_owned(),
                        format!("dot16(wa{row}, ha) + dot16(wb{row}, hb)"),
                    ),
                    ("256".to_owned(), middle),
                    (
                        "1".to_owned(),
                        format!("dot16(ra{row}, la) + dot16(rb{row}, lb)"),
                    ),
                ]
            }
        };
        for (factor, sum) in terms {
            let total = format!("total[k + {row}u]");
            let _ = if self.int64 {
                writeln!(out, "            {total} += i64({factor}) * i64({sum});")
            } else {
                writeln!(
                    out,
                    "            {total} = add64({total}, wide_product({factor}, {sum}));"
                )
            };
        }
    }

    fn main(&self, out: &mut String) {
        let mut body = String::new();
        for index in (0..self.formats.len()).rev() {
            let condition = match index {
                0 => "{".to_owned(),
                _ => format!("if group.x >= params.slots[{index}].first_group {{"),
            };
            let _ = write!(
                body,
                "{condition}
        row0 = (group.x - params.slots[{index}].first_group) * {rows}u;
        tile{index}(t, row0, first);
        finish{index}(t, row0, first);
    }}{next}",
                rows = self.shape.rows(),
                next = if index == 0 { "\n" } else { " else " },
            );
            let _ = write!(
                out,
                "
fn finish{index}(t: u32, row0: u32, first: u32) {{
    let slot = params.slots[{index}];
{around}            let exponent = bitcast<i32>(word{index}(slot.exponents + row));
            y[token * params.stride + slot.output_at + row] = scale2(to_float(total[i * {OF_THREAD}u + j]), exponent + of_x);
        }}
    }}
}}
",
                around = AROUND,
            );
        }
        let _ = write!(
            out,
            "
@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {{
    let first = group.y * {tokens}u;
    var row0 = 0u;
    {body}}}
",
            threads = self.shape.threads(),
            tokens = self.shape.tokens(),
        );
    }

    fn gated_main(&self, out: &mut String, gate: Gate) {
        let _ = write!(
            out,
            "
@group(0) @binding(7) var<storage, read_write> status: array<atomic<u32>>;

@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {{
    let first = group.y * {tokens}u;
    let row0 = group.x * {rows}u;
    tile0(t, row0, first);
    let gates = total;
    tile1(t, row0, first);
    let slot = params.slots[0];
{around}            let gate_exponent = bitcast<i32>(word0(slot.exponents + row));
            let up_exponent = bitcast<i32>(word1(params.slots[1].exponents + row));
            let gate = scale2(to_float(gates[i * {OF_THREAD}u + j]), gate_exponent + of_x);
            let up = scale2(to_float(total[i * {OF_THREAD}u + j]), up_exponent + of_x);
            if max(gate & MAGNITUDE, up & MAGNITUDE) >= NOT_FINITE {{
                atomicMin(&status[token], params.stage);
            }}
            y[token * params.stride + slot.output_at + row] = {name}(gate, up);
        }}
    }}
}}
",
            threads = self.shape.threads(),
            tokens = self.shape.tokens(),
            rows = self.shape.rows(),
            around = AROUND,
            name = gate_name(gate),
        );
    }
}

/// Goes through a thread's rows of the batch and of the matrix, those that exist.
const AROUND: &str = "    let count = batch[params.count_at];
    for (var i = 0u; i < 4u; i++) {
        let token = first + t % TT + i * TT;
        if token >= count {
            break;
        }
        let of_x = bitcast<i32>(x[token * BLOCKS * 5u + 4u].z);
        for (var j = 0u; j < 4u; j++) {
            let row = row0 + t / TT + j * TR;
            if row >= slot.rows {
                break;
            }
";

/// Vectors of four words of a block's weights.
fn quads(format: Format) -> u32 {
    match format.coefficients {
        Coefficients::One => 4,
        _ => 2,
    }
}
