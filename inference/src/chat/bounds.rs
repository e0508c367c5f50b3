//! What a chat template may make while it is rendered.
//! In: a template's source. Out: its instructions, with checks between them, and the environment they run in.
//! minijinja's fuel pays for instructions, bytes and slots, but not for what a value stands for: a list that has
//! another list twice costs two slots, thirty such steps stand for 2^30 items, and whatever walks them (printing,
//! comparing, `list + list`) takes that time and memory. So each container is weighed with all that is in it when it
//! is made, and again when something walks it.
//! It never lets a value stand for more than [`VALUE_BYTES_MAX`], or a container have itself in it.

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::literals;

/// Bytes that one unit of fuel pays for, as minijinja counts.
pub(super) const BYTES_PER_FUEL: usize = 64;
/// What one value may stand for: its texts, and [`NODE_BYTES`] for each value in it, all counted as often as they
/// would be printed. The longest prompt has as many bytes.
pub(super) const VALUE_BYTES_MAX: usize = super::PROMPT_BYTES_MAX;
/// A value of 24 bytes in a list or a map, and its allocation.
const NODE_BYTES: usize = 64;
/// Values that are weighed for one unit of fuel.
const NODES_PER_FUEL: usize = 8;
/// The deepest indentation of one step of printed JSON.
const INDENT_MAX: usize = 64;

/// Names that no template can spell.
const WEIGH: &str = "(weigh)";
const SETTLE: &str = "(settle)";
const KEEP: &str = "(keep)";

/// minijinja's filters that walk a value, as the functions that weigh their arguments are called; `pprint` is not
/// offered.
const FILTERS: &[&str] = &[
    "|abs",
    "|attr",
    "|batch",
    "|capitalize",
    "|chain",
    "|dictsort",
    "|e",
    "|escape",
    "|float",
    "|format",
    "|groupby",
    "|indent",
    "|int",
    "|items",
    "|join",
    "|last",
    "|lines",
    "|list",
    "|lower",
    "|map",
    "|max",
    "|min",
    "|reject",
    "|rejectattr",
    "|replace",
    "|reverse",
    "|round",
    "|select",
    "|selectattr",
    "|slice",
    "|sort",
    "|split",
    "|string",
    "|sum",
    "|title",
    "|tojson",
    "|trim",
    "|unique",
    "|upper",
    "|zip",
];

/// minijinja's tests that walk a value, likewise.
const TESTS: &[&str] = &[
    "?!=",
    "?<",
    "?<=",
    "?==",
    "?>",
    "?>=",
    "?divisibleby",
    "?endingwith",
    "?eq",
    "?equalto",
    "?ge",
    "?greaterthan",
    "?gt",
    "?in",
    "?le",
    "?lessthan",
    "?lower",
    "?lt",
    "?ne",
    "?startingwith",
    "?upper",
];

/// Compiles a template and puts the checks between its instructions.
///
/// # Errors
/// What is wrong with the template, and in which line.
pub(super) fn compile<'source>(
    source: &'source str,
    syntax: &SyntaxConfig,
) -> Result<Instructions<'source>, Error> {
    const NAME: &str = "<string>";
    let tree = parse(source, NAME, syntax.clone())?;
    literals::check(&tree)?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&tree);
    let (instructions, _) = generator.finish();
    Ok(checked(&instructions, NAME, source))
}

/// The same instructions with calls of [`settle`] and [`keep`] around those that make or walk values.
fn checked<'source>(
    plain: &Instructions<'source>,
    name: &'static str,
    source: &'source str,
) -> Instructions<'source> {
    let instructions = (0..).map_while(|at| plain.get(at).cloned().map(|it| (at, it)));
    // Where each instruction, with its checks, begins; and where the last one ends.
    let mut places = Vec::new();
    let mut steps = Vec::new();
    for (at, instruction) in instructions {
        places.push(u32::try_from(steps.len()).unwrap_or(u32::MAX));
        let line = plain.get_line(at).and_then(|line| u16::try_from(line).ok());
        steps.extend(surrounded(instruction).into_iter().map(|it| (line, it)));
    }
    places.push(u32::try_from(steps.len()).unwrap_or(u32::MAX));
    let mut checked = Instructions::new(name, source);
    for (line, mut step) in steps {
        if let Some(target) = jump_target(&mut step) {
            *target = places.get(*target as usize).copied().unwrap_or(*target);
        }
        match line {
            Some(line) => checked.add_with_line(step, line),
            None => checked.add(step),
        };
    }
    checked
}

/// Where an instruction may go on, if not at the next one.
fn jump_target<'a>(instruction: &'a mut Instruction<'_>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// One instruction with its checks.
fn surrounded(instruction: Instruction<'_>) -> Vec<Instruction<'_>> {
    use Instruction::{CallFunction, DiscardTop, DupTop, Swap};
    // The first leaves the value on top of the stack as it is; the second takes it and puts back what it makes of it.
    let weigh = || [DupTop, CallFunction(WEIGH, Some(1)), DiscardTop];
    let settle = || CallFunction(SETTLE, Some(1));
    match instruction {
        // They walk one value: the key of a look-up is compared with others.
        Instruction::Emit | Instruction::GetItem => {
            weigh().into_iter().chain([instruction]).collect()
        }
        // They walk two.
        Instruction::StringConcat
        | Instruction::Eq
        | Instruction::Ne
        | Instruction::Gt
        | Instruction::Gte
        | Instruction::Lt
        | Instruction::Lte
        | Instruction::In
        | Instruction::CompareAndPreserve(_) => {
            let steps = weigh().into_iter().chain([Swap]).chain(weigh());
            steps.chain([Swap, instruction]).collect()
        }
        // They make a container.
        Instruction::BuildList(_) | Instruction::BuildTuple(_) | Instruction::BuildMap(_) => {
            [instruction].into_iter().chain(weigh()).collect()
        }
        // They make a value that may be a lazy sequence.
        Instruction::Add
        | Instruction::Mul
        | Instruction::Slice
        | Instruction::CallFunction(..)
        | Instruction::CallObject(_) => vec![instruction, settle()],
        Instruction::CallMethod(..) => {
            let steps = weigh().into_iter().chain([instruction]);
            steps.chain([settle()]).collect()
        }
        Instruction::SetAttr(_) => {
            vec![Swap, CallFunction(KEEP, Some(1)), Swap, instruction]
        }
        // The function of that name weighs all arguments.
        Instruction::ApplyFilter(name, count, _) => match spelled(FILTERS, name) {
            Some(function) => vec![CallFunction(function, count), settle()],
            None => vec![instruction],
        },
        Instruction::PerformTest(name, count, _) => match spelled(TESTS, name) {
            Some(function) => vec![CallFunction(function, count)],
            None => vec![instruction],
        },
        _ => vec![instruction],
    }
}

/// The name of the function that stands for a filter or a test.
fn spelled(table: &'static [&'static str], name: &str) -> Option<&'static str> {
    table.iter().copied().find(|it| it.get(1..) == Some(name))
}

/// Adds the functions that the checks call, and filters whose cost minijinja sees too late.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.remove_global("debug");
    environment.remove_filter("pprint");
    environment.add_function(WEIGH, |state: &State, value: ValueOrKwargs| {
        weigh(state, &value).map(|_| ())
    });
    environment.add_function(SETTLE, settle);
    environment.add_function(KEEP, keep);
    for function in FILTERS {
        let name = &function[1..];
        environment.add_function(
            *function,
            move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
                let arguments = weighed(state, arguments)?;
                state.apply_filter(name, &arguments)
            },
        );
    }
    for function in TESTS {
        let name = &function[1..];
        environment.add_function(
            *function,
            move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
                let arguments = weighed(state, arguments)?;
                state.perform_test(name, &arguments)
            },
        );
    }
    environment.add_filter("split", split);
    environment.add_filter("lines", lines);
    environment.add_filter("tojson", to_json);
    environment.add_filter("sum", sum);
}

fn weighed(state: &State, arguments: Rest<ValueOrKwargs>) -> Result<Vec<Value>, Error> {
    let arguments = arguments.into_values();
    for argument in &arguments {
        weigh(state, argument)?;
    }
    Ok(arguments)
}

/// Weighs a value and gives it back; of a lazy sequence it gives the list, so that nothing is computed twice.
fn settle(state: &State, value: ValueOrKwargs) -> Result<Value, Error> {
    let value = Value::from(value);
    weigh(state, &value)?;
    if value.kind() != ValueKind::Iterable {
        return Ok(value);
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        items.push(item);
    }
    Ok(items.into())
}

/// Weighs what an attribute of a namespace is set to.
fn keep(state: &State, value: Value) -> Result<Value, Error> {
    if is_namespace(&value) {
        return Err(nested_namespace());
    }
    settle(state, value.into())
}

/// What a value stands for.
#[derive(Default)]
pub(super) struct Weight {
    values: usize,
    bytes: usize,
    /// Σ over all values of how deep they lie.
    depths: usize,
}

pub(super) fn weigh(state: &State, value: &Value) -> Result<Weight, Error> {
    let mut weight = Weight::default();
    weigh_into(state, value, 0, &mut weight)?;
    if weight.values == 1 {
        // A text that is compared, searched or copied.
        state.consume_fuel((weight.bytes / BYTES_PER_FUEL).saturating_sub(1) as u64)?;
    }
    Ok(weight)
}

fn weigh_into(
    state: &State,
    value: &Value,
    depth: usize,
    weight: &mut Weight,
) -> Result<(), Error> {
    weight.values += 1;
    weight.bytes += NODE_BYTES;
    weight.depths += depth;
    if weight.values.is_multiple_of(NODES_PER_FUEL) {
        state.consume_fuel(1)?;
    }
    match value.kind() {
        ValueKind::String => weight.bytes += value.as_str().map_or(0, str::len),
        ValueKind::Bytes => weight.bytes += value.as_bytes().map_or(0, <[u8]>::len),
        // A namespace may change after it was weighed, or hold itself.
        _ if depth > 0 && is_namespace(value) => return Err(nested_namespace()),
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                weigh_into(state, &item, depth + 1, weight)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                weigh_into(state, &key, depth + 1, weight)?;
                weigh_into(state, &value.get_item(&key)?, depth + 1, weight)?;
            }
        }
        _ => (),
    }
    if weight.bytes > VALUE_BYTES_MAX {
        return Err(ErrorKind::OutOfFuel.into());
    }
    Ok(())
}

fn is_namespace(value: &Value) -> bool {
    let object = value.as_object();
    object.is_some_and(|it| it.type_name().ends_with("::Namespace"))
}

fn nested_namespace() -> Error {
    let detail = "a namespace cannot be kept in another value";
    Error::new(ErrorKind::InvalidOperation, detail)
}

/// Bytes of the list that a text's parts make: a value of 24 bytes a part, and an allocation where it is long.
pub(super) fn parts_bytes(text: &str, border: &str) -> usize {
    text.len()
        .saturating_div(border.len().max(1))
        .saturating_mul(48)
}

fn split(
    state: &State,
    value: &Value,
    border: Option<String>,
    splits_max: Option<i64>,
) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or("");
    let bytes = parts_bytes(text, border.as_deref().unwrap_or(""));
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)?;
    filters::split(value, border.map(Into::into), splits_max)
}

fn lines(state: &State, value: &Value) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or("");
    state.consume_fuel((parts_bytes(text, "") / BYTES_PER_FUEL) as u64)?;
    filters::lines(value)
}

/// JSON is indented by the depth of each value, which a short value can make long.
fn to_json(
    state: &State,
    value: &Value,
    indent: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let weight = weigh(state, value)?;
    let given = match &indent {
        Some(indent) => Some(indent.clone()),
        None => named.get::<Option<Value>>("indent")?,
    };
    let step = given.and_then(|it| it.as_usize()).unwrap_or(2);
    if step > INDENT_MAX || weight.depths.saturating_mul(step) > VALUE_BYTES_MAX {
        return Err(ErrorKind::OutOfFuel.into());
    }
    // As minijinja charges for it; no byte becomes more than six.
    state.consume_fuel((weight.bytes / NODE_BYTES) as u64)?;
    filters::tojson(value, indent, named)
}

/// Each step copies the sum so far if it is a text or a list.
fn sum(
    state: &State,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let weight = weigh(state, &values)?;
    let copied = weight.values.saturating_mul(weight.bytes / NODE_BYTES);
    state.consume_fuel((copied / BYTES_PER_FUEL) as u64)?;
    filters::sum(state, values, attribute, start, named)
}
