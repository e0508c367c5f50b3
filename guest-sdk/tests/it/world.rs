//! The native stand-ins for the bindings are the world's own records and enums.

use std::collections::BTreeMap;

const WORLD: &str = include_str!("../../wit/world.wit");
const NATIVE: &str = include_str!("../../src/bindings/native.rs");

/// The blocks of a source that these words open: a name in camel case, and its lines.
fn blocks<'a>(source: &'a str, openings: [&str; 2]) -> BTreeMap<String, Vec<&'a str>> {
    let mut found = BTreeMap::new();
    let mut lines = source.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let opened = openings.iter().find_map(|word| line.strip_prefix(word));
        if let Some(name) = opened.and_then(|rest| rest.strip_suffix(" {")) {
            let inside = lines.by_ref().take_while(|line| *line != "}");
            let inside = inside.filter(|line| !line.starts_with("///") && !line.is_empty());
            found.insert(camel(name), inside.collect());
        }
    }
    found
}

fn camel(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect()
}

/// A line of WIT as the line of Rust that stands for it.
fn rust(line: &str) -> String {
    let line = line.trim_end_matches(',');
    let Some((field, kind)) = line.split_once(": ") else {
        return format!("{},", camel(line));
    };
    let kind = match kind {
        "string" => "String".to_owned(),
        "list<string>" => "Vec<String>".to_owned(),
        "list<u8>" => "Vec<u8>".to_owned(),
        "list<u32>" => "Vec<u32>".to_owned(),
        "option<u32>" => "Option<u32>".to_owned(),
        number if ["u32", "u64", "f32"].contains(&number) => number.to_owned(),
        name => camel(name),
    };
    format!("pub {}: {kind},", field.replace('-', "_"))
}

#[test]
fn the_native_types_are_those_of_the_world() {
    let world = blocks(WORLD, ["record ", "enum "]);
    let native = blocks(NATIVE, ["pub struct ", "pub enum "]);
    assert_eq!(
        world.keys().collect::<Vec<_>>(),
        native.keys().collect::<Vec<_>>()
    );
    assert!(world.len() >= 12, "{world:?}");
    for (name, lines) in world {
        let expected: Vec<String> = lines.into_iter().map(rust).collect();
        assert_eq!(native[&name], expected, "{name}");
    }
}
