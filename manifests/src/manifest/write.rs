//! Manifest → TOML: one spelling for each value, every field written out, so that a later change
//! of a default changes no manifest that exists.

use std::fmt::Write as _;

use super::{JobDescription, ModuleRef};
use crate::limits::{LimitField, Limits, Unit, grouped, size};

/// Names and digests need no escapes: their alphabets hold neither quotes nor backslashes.
pub(super) fn to_toml(job: &JobDescription, module: Option<&ModuleRef>) -> String {
    let mut text = String::new();
    let out = &mut text;
    line(out, format_args!("version = {}", job.version.number()));
    line(out, format_args!("name = \"{}\"", job.name));
    line(
        out,
        format_args!("price_nanograms_max = {}", job.price_nanograms_max.get()),
    );
    line(out, format_args!("device = \"{}\"", job.device));
    line(out, format_args!("determinism = \"{}\"", job.determinism));
    line(out, format_args!("abi = \"{}\"", job.abi));
    if let Some(module) = module {
        line(
            out,
            format_args!("\n[module]\ndigest = \"{}\"", module.digest),
        );
        line(out, format_args!("size_bytes = {}", module.size_bytes));
    }
    for (name, model) in &job.models {
        // Quoted where a bare key would be split at its dots.
        let quote = if name.as_str().contains('.') {
            "\""
        } else {
            ""
        };
        line(
            out,
            format_args!(
                "\n[models.{quote}{name}{quote}]\ndigest = \"{}\"",
                model.digest
            ),
        );
        line(out, format_args!("format = \"{}\"", model.format));
    }
    line(out, format_args!("\n[limits]"));
    for field in &Limits::FIELDS {
        line(
            out,
            format_args!(
                "{} = {}",
                field.name,
                limit(field, (field.get)(&job.limits))
            ),
        );
    }
    text
}

fn line(out: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(out, "{content}").expect("writing to memory cannot fail");
}

/// Sizes in the largest unit that leaves no fraction, other numbers in groups of three digits.
fn limit(field: &LimitField, value: u64) -> String {
    match size(value) {
        Some(size) if field.unit == Unit::Bytes => format!("\"{size}\""),
        _ => grouped(value),
    }
}
