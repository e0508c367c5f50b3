//! Manifest → TOML: one spelling for each value, every field written out, so that a later change
//! of a default changes no manifest that exists.

use std::fmt::Write as _;

use super::{JobDescription, ModuleRef};
use crate::build_info::BuildRecord;
use crate::limits::{LimitField, Limits, Unit, grouped, size};
use crate::names::Label;

/// Names and digests need no escapes: their alphabets hold neither quotes nor backslashes.
pub(super) fn to_toml(
    job: &JobDescription,
    module: Option<&ModuleRef>,
    build: Option<&BuildRecord>,
) -> String {
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
    if let Some(build) = build {
        write_build(out, build);
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

/// Labels are any text, so they are written with TOML's own escapes.
fn write_build(out: &mut String, build: &BuildRecord) {
    let quoted = |label: &Label| toml::Value::from(label.as_str()).to_string();
    let BuildRecord { code_digest, info } = build;
    line(
        out,
        format_args!("\n[build]\ncode_digest = \"{code_digest}\""),
    );
    line(out, format_args!("rustc = {}", quoted(&info.rustc)));
    line(
        out,
        format_args!("rustc_commit = {}", quoted(&info.rustc_commit)),
    );
    line(out, format_args!("std_digest = \"{}\"", info.std_digest));
    for (name, labels) in [("bldarg", &info.bldarg), ("bldopt", &info.bldopt)] {
        let labels: Vec<String> = labels.iter().map(quoted).collect();
        line(out, format_args!("{name} = [{}]", labels.join(", ")));
    }
    for (name, label) in [
        ("sdk", &info.sdk),
        ("bldimg", &info.bldimg),
        ("source_sha256", &info.source_sha256),
        ("source_uri", &info.source_uri),
    ] {
        if let Some(label) = label {
            line(out, format_args!("{name} = {}", quoted(label)));
        }
    }
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
