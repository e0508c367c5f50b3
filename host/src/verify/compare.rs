//! Where two modules differ first, by the name of the function or section.
//!
//! In: the module that was given, the one that was built, and the same with the names of its
//! functions. Out: one place, code before data, since data moves when code does.

use serde::Serialize;
use wasmparser::{BinaryReader, CodeSectionReader, ImportSectionReader, Name, NameSectionReader};

use crate::build::sections::{Section, split};

const CODE: u8 = 10;
const IMPORT: u8 = 2;
/// Names of functions are a compiler's, and may be long.
const NAME_CHARACTERS_MAX: usize = 200;

/// The first place where two modules differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// For people: a function or a section, and in which of the modules inside.
    pub(crate) at: String,
    /// The function's name, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    /// The crate that the function is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) krate: Option<String>,
}

impl Difference {
    fn of(at: String) -> Self {
        Self {
            at,
            function: None,
            krate: None,
        }
    }
}

/// The first difference in code, nothing if there is none; custom sections do not count.
pub(crate) fn code(given: &[u8], built: &[u8], named: Option<&[u8]>) -> Option<Difference> {
    within(given, built, named, "the module")
}

fn within(given: &[u8], built: &[u8], named: Option<&[u8]>, what: &str) -> Option<Difference> {
    let sections = match split(given) {
        Ok(sections) => sections,
        Err(error) => return Some(Difference::of(error.to_string())),
    };
    let code = |sections: Vec<Section>| -> Vec<Section> {
        let code = sections.into_iter().filter(|section| section.id != 0);
        code.collect()
    };
    let ours = code(split(built).ok()?);
    let theirs = code(sections);
    let names = named.and_then(|named| Some((named, code(split(named).ok()?))));
    let mut first = None;
    for (index, our) in ours.iter().enumerate() {
        let Some(their) = theirs.get(index) else {
            let at = format!("{what} lacks its {} section", section_name(built, our.id));
            return Some(Difference::of(at));
        };
        let (a, b) = (&given[their.content.clone()], &built[our.content.clone()]);
        if their.id != our.id {
            let (theirs, ours) = (section_name(given, their.id), section_name(built, our.id));
            let at = format!("{what} has a {theirs} section where the rebuilt one has {ours}");
            return Some(Difference::of(at));
        }
        if a == b {
            continue;
        }
        let named = names.as_ref().and_then(|(named, sections)| {
            let section = sections.get(index).filter(|section| section.id == our.id)?;
            Some(&named[section.content.clone()])
        });
        match (our.nested(built), their.nested(given)) {
            (Some(our), Some(their)) => {
                let what = format!("module {index} in {what}");
                if let Some(found) = within(their, our, named, &what) {
                    return Some(found);
                }
            }
            _ if our.id == CODE => {
                let named = names.as_ref().map(|(named, _)| *named);
                return Some(function(a, b, built, named, what));
            }
            _ => {
                let name = section_name(built, our.id);
                let byte = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                first = first.or_else(|| {
                    let at = format!("byte {byte} of the {name} section of {what}");
                    Some(Difference::of(at))
                });
            }
        }
    }
    if let Some(more) = theirs.get(ours.len())
        && first.is_none()
    {
        let name = section_name(given, more.id);
        first = Some(Difference::of(format!(
            "{what} has one more {name} section"
        )));
    }
    first
}

fn bodies(content: &[u8]) -> Option<Vec<&[u8]>> {
    let reader = CodeSectionReader::new(BinaryReader::new(content, 0)).ok()?;
    let bodies = reader.into_iter().map(|body| {
        let range = body.ok()?.range();
        content.get(range)
    });
    bodies.collect()
}

/// The first function of two code sections that differs.
fn function(
    given: &[u8],
    built: &[u8],
    module: &[u8],
    named: Option<&[u8]>,
    what: &str,
) -> Difference {
    let (Some(theirs), Some(ours)) = (bodies(given), bodies(built)) else {
        return Difference::of(format!("the code section of {what} is no code section"));
    };
    let same = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
    if same == ours.len() {
        let at = format!("{what} has more functions: {}", theirs.len());
        return Difference::of(at);
    }
    let index = imported(module) + u32::try_from(same).unwrap_or(u32::MAX);
    let name = named.and_then(|named| name_of(named, index));
    let Some(name) = name else {
        return Difference::of(format!("function {index} of {what}"));
    };
    let name = format!("{:#}", rustc_demangle::demangle(&name));
    let name: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
    let words = name.trim_start_matches(['<', '&', '*', '[', '(']);
    let krate = words
        .split_once("::")
        .map(|(krate, _)| krate.rsplit(' ').next().unwrap_or(krate).to_owned());
    Difference {
        at: format!("function {index} of {what}, `{name}`"),
        krate,
        function: Some(name),
    }
}

/// How many functions a core module imports: the numbers of its own begin behind them.
fn imported(module: &[u8]) -> u32 {
    let Ok(sections) = split(module) else {
        return 0;
    };
    let imports = sections.into_iter().find(|section| section.id == IMPORT);
    let count = imports.and_then(|section| {
        let reader = BinaryReader::new(&module[section.content], 0);
        let reader = ImportSectionReader::new(reader).ok()?;
        let is_function = |import: &wasmparser::Import<'_>| {
            matches!(
                import.ty,
                wasmparser::TypeRef::Func(_) | wasmparser::TypeRef::FuncExact(_)
            )
        };
        let imports = reader.into_imports().map_while(Result::ok);
        u32::try_from(imports.filter(is_function).count()).ok()
    });
    count.unwrap_or(0)
}

/// The name of a function in a core module's section of names.
fn name_of(module: &[u8], function: u32) -> Option<String> {
    let sections = split(module).ok()?.into_iter();
    let names = sections.filter(|section| section.name.as_deref() == Some("name"));
    for section in names {
        let reader = NameSectionReader::new(BinaryReader::new(&module[section.content], 0));
        for name in reader.into_iter().map_while(Result::ok) {
            let Name::Function(map) = name else { continue };
            for naming in map.into_iter().map_while(Result::ok) {
                if naming.index == function {
                    return Some(naming.name.to_owned());
                }
            }
        }
    }
    None
}

fn section_name(of: &[u8], id: u8) -> String {
    let names: &[&str] = if crate::build::sections::is_component(of) {
        &[
            "custom",
            "core module",
            "core instance",
            "core type",
            "component",
            "instance",
            "alias",
            "type",
            "canonical function",
            "start",
            "import",
            "export",
        ]
    } else {
        &[
            "custom",
            "type",
            "import",
            "function",
            "table",
            "memory",
            "global",
            "export",
            "start",
            "element",
            "code",
            "data",
            "data count",
            "tag",
        ]
    };
    match names.get(usize::from(id)) {
        Some(name) => (*name).to_owned(),
        None => format!("unknown ({id})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wat(body: &str, data: &str) -> Vec<u8> {
        let text = format!(
            r#"(component (core module
                 (import "host" "log" (func $log))
                 (memory 1)
                 (func $job::first nop)
                 (func $job::second {body})
                 (data (i32.const 0) "{data}")))"#
        );
        wat::parse_str(text).unwrap()
    }

    #[track_caller]
    fn check(given: &[u8], expected: Option<(&str, Option<&str>)>) {
        let built = wat("nop", "x");
        let stripped = crate::build::sections::without_custom(&built).unwrap();
        let found = code(given, &stripped, Some(&built));
        let found = found.map(|found| (found.at, found.krate));
        let expected = expected.map(|(at, krate)| (at.to_owned(), krate.map(str::to_owned)));
        assert_eq!(found, expected);
    }

    #[test]
    fn differences_have_names() {
        check(&wat("nop", "x"), None);
        check(
            &wat("nop nop", "y"),
            Some((
                "function 2 of module 0 in the module, `job::second`",
                Some("job"),
            )),
        );
        check(
            &wat("nop", "y"),
            Some(("byte 6 of the data section of module 0 in the module", None)),
        );
        check(
            b"\0asm\x0d\0\x01\0",
            Some(("the module lacks its core module section", None)),
        );
        let more = [&wat("nop", "x")[..], &[7, 1, 0]].concat();
        check(&more, Some(("the module has one more type section", None)));
        check(
            b"\x7fELF",
            Some(("the module's sections do not make sense at byte 0", None)),
        );
    }

    #[test]
    fn no_flipped_bit_panics() {
        let good = wat("nop", "x");
        let mut noticed = 0;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            noticed += u32::from(code(&bytes, &good, Some(&good)).is_some());
        }
        assert!(noticed > 0);
    }
}
