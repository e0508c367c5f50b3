//! WGSL that reads a block of a matrix.
//! In: the format that [`super::weights`] packed it in. Out: its weights as quads of bytes, and its
//! coefficients as integers. What is computed with them is not its business.

use std::fmt::Write as _;

use super::weights::{Bits, Coefficients, Format};

/// Reads a block: quads q0 to q7 (and r0 to r7, the low bytes of shorts) and its coefficients.
pub(super) fn unpack(index: usize, format: Format) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "            {text}");
    };
    let lanes = ["x", "y", "z", "w"];
    let planes: &[(&str, usize)] = match format.bits {
        Bits::Four | Bits::Five | Bits::Six => &[],
        Bits::Eight => &[("q", 0)],
        Bits::Sixteen => &[("q", 0), ("r", 2)],
    };
    let vectors = format.words() / 4;
    for (name, from) in planes {
        for half in 0..2 {
            line(format!(
                "let {name}v{half} = w{index}[at * {vectors}u + {}u];",
                from + half
            ));
        }
        for quad in 0..8 {
            line(format!(
                "let {name}{quad} = {name}v{}.{};",
                quad / 4,
                lanes[quad % 4]
            ));
        }
    }
    if planes.is_empty() {
        line(format!("let nibbles = w{index}[at];"));
        match format.bits {
            Bits::Five => line(format!("let fifth = word{index}(slot.extra + at);")),
            Bits::Six => {
                for half in 0..2 {
                    line(format!(
                        "let top{half} = word{index}(slot.extra + 2u * at + {half}u);"
                    ));
                }
            }
            _ => {}
        }
        for (quad, lane) in (0..8).map(|quad| (quad, lanes[quad % 4])) {
            let low = match quad / 4 {
                0 => format!("nibbles.{lane} & 0x0f0f0f0fu"),
                _ => format!("(nibbles.{lane} >> 4u) & 0x0f0f0f0fu"),
            };
            let top = match format.bits {
                Bits::Five => format!(" | (((fifth >> {quad}u) & 0x01010101u) << 4u)"),
                Bits::Six => {
                    format!(
                        " | (((top{} >> {}u) & 0x03030303u) << 4u)",
                        quad / 4,
                        2 * (quad % 4)
                    )
                }
                _ => String::new(),
            };
            line(format!("let q{quad} = ({low}){top};"));
        }
    }
    let half = format!(
        "(word{index}(slot.coefficients + row * ((BLOCKS + 1u) / 2u) + block / 2u) >> (16u * (block & 1u)))"
    );
    let supers = format!("word{index}(slot.supers + row * ((BLOCKS + 7u) / 8u) + block / 8u)");
    match format.coefficients {
        Coefficients::One => {}
        Coefficients::Scale => line(format!("let scale = coefficient({half});")),
        Coefficients::Minimum => {
            line(format!("let both = word{index}(slot.coefficients + at);"));
            line("let scale = coefficient(both);".to_owned());
            line("let minimum = coefficient(both >> 16u);".to_owned());
        }
        Coefficients::SuperMinimum => {
            line(format!("let factors = {half};"));
            line(format!("let outer = {supers};"));
            line("let scale = signed_half(outer, 0u) * i32(factors & 255u);".to_owned());
            line(
                "let minimum = -(signed_half(outer, 1u) * i32((factors >> 8u) & 255u));".to_owned(),
            );
        }
        Coefficients::SuperHalves => {
            line(format!("let factors = {half};"));
            line(format!("let outer = bitcast<i32>({supers});"));
            line("let scale = outer * signed_byte(factors, 0u);".to_owned());
            line("let scale_last = outer * signed_byte(factors, 1u);".to_owned());
        }
    }
    out
}

/// After [`unpack`]: the block's weights as f32 but for the row's exponent, quads f0 to f7.
pub(super) fn floats(format: Format) -> String {
    let mut out = String::new();
    for quad in 0..8 {
        let value = match format.bits {
            Bits::Sixteen => {
                format!("vec4<f32>(unpack4xI8(q{quad})) * 256.0 + vec4<f32>(unpack4xI8(r{quad}))")
            }
            Bits::Eight => format!("vec4<f32>(unpack4xI8(q{quad}))"),
            Bits::Four | Bits::Five | Bits::Six => {
                format!("(vec4<f32>(unpack4xU8(q{quad})) - {}.0)", format.bias)
            }
        };
        let value = match (format.coefficients, quad / 4) {
            (Coefficients::One, _) => value,
            (Coefficients::Scale, _) | (Coefficients::SuperHalves, 0) => {
                format!("f32(scale) * {value}")
            }
            (Coefficients::SuperHalves, _) => format!("f32(scale_last) * {value}"),
            (Coefficients::Minimum | Coefficients::SuperMinimum, _) => {
                format!("f32(scale) * {value} + f32(minimum)")
            }
        };
        let _ = writeln!(out, "            let f{quad} = {value};");
    }
    out
}
