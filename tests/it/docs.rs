//! The reference of the job's world names everything that the world has.

use std::{collections::BTreeSet, fs};

use crate::fixture::{Sandbox, repository};

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The names that a WIT text declares: interfaces, types, functions, fields and cases.
fn names(wit: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for line in wit.lines().map(str::trim) {
        if line.starts_with("//") || line.starts_with("use ") || line.starts_with("package ") {
            continue;
        }
        let line = ["interface ", "record ", "enum ", "resource ", "export "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
            .unwrap_or(line);
        let end = line
            .find(|letter: char| !letter.is_ascii_lowercase() && letter != '-')
            .unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let declares = rest.starts_with([':', ',', ' ']) && !name.is_empty();
        if declares && !["import", "world"].contains(&name) {
            found.insert(name);
        }
    }
    found
}

#[test]
fn the_reference_of_the_world_is_complete() {
    let wit = read("guest-sdk/wit/world.wit");
    let reference = read("docs/wit.md") + &read("docs/errors.md");
    let names = names(&wit);
    assert!(names.contains("append-chat") && names.contains("context-full"));
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !reference.contains(&format!("`{name}")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/wit.md says nothing of {missing:?}"
    );
}

#[test]
fn the_list_of_errors_is_complete() {
    let document = read("docs/errors.md");
    let source = read("guest-sdk/src/error.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | 65,"));
    let missing: Vec<_> = rows
        .filter(|row| {
            let mut cells = row.split('|').map(str::trim);
            let (number, name) = (cells.next().unwrap(), cells.next().unwrap());
            !document.contains(&format!("| {name} | 65,{number} |"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
    assert!(source.contains("/// | 65,536 |"));
}

#[test]
fn the_list_of_commands_is_complete() {
    let document = read("docs/commands.md");
    let help = Sandbox::new().run(&["--help"]).expect(0).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        // What goes on from the line before is indented further.
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert!(commands.contains(&"submit"), "{help}");
    let missing: Vec<_> = commands
        .iter()
        .filter(|name| !document.contains(&format!("`tussah {name}")))
        .collect();
    assert!(missing.is_empty(), "docs/commands.md lacks {missing:?}");
}
