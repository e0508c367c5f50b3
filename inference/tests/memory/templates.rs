//! Chat templates out of files that mean harm: each ends with an error, in bounded memory, and in time for this
//! test to end: unbounded it would be hours.

use tussah_inference::{ChatMessage, LoadOptions, ModelError, TEMPLATE_RENDER_BYTES_MAX};

use crate::builder::{self, Q4_1, SMALL, Value};
use crate::peak_of;

/// What rendering one message with a template says; its memory stays under the stated ceiling.
#[track_caller]
fn rendered(template: &str) -> String {
    let (said, peak) = peak_of(|| rendered_here(template));
    // The model and the template's text, loaded and compiled, are small beside it.
    let name: String = template.chars().take(160).collect();
    println!("{:>4} MiB: {name} -> {said}", peak >> 20);
    assert!(peak <= TEMPLATE_RENDER_BYTES_MAX, "{peak} bytes: {name}");
    said
}

fn rendered_here(template: &str) -> String {
    let mut file = builder::llama(SMALL, Q4_1);
    file.set("tokenizer.chat_template", Value::Text(template.to_owned()));
    let options = LoadOptions {
        threads: 1,
        ..LoadOptions::default()
    };
    let model = match file.load(&options) {
        Ok(model) => model,
        Err(ModelError::Chat(error)) => return format!("not loaded: {error}"),
        Err(error) => panic!("{error}"),
    };
    let turn = ChatMessage {
        role: "user".to_owned(),
        content: "hello".to_owned(),
    };
    match model.render_chat(&[turn], true) {
        Ok(text) => format!("{} bytes", text.len()),
        Err(error) => error.to_string(),
    }
}

const FUEL: &str = "used more than its 1000000 units of fuel";

/// Runs `body` a hundred thousand times.
fn often(body: &str) -> String {
    format!(
        "{{% set ns = namespace(x='ab', l=[1]) %}}{{% for i in range(100000) %}}{body}{{% endfor %}}{{{{ ns.x[:3] }}}}"
    )
}

#[test]
fn templates_that_mean_harm_end_with_an_error() {
    let table: Vec<(&str, String, &str)> = vec![
        (
            "nested loops",
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".into(),
            FUEL,
        ),
        (
            "a macro without end",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(),
            "recursion limit",
        ),
        (
            "a loop that calls itself",
            "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(),
            "recursion limit",
        ),
        (
            "two macros that call each other twice",
            "{% macro f(n) %}{{ g(n) }}{{ g(n) }}{% endmacro %}{% macro g(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(25) }}".into(),
            "recursion limit",
        ),
        ("a gigabyte of x", "{{ 'x' * 10**9 }}".into(), FUEL),
        ("90 MB of x", "{% set x = 'x' * 90000000 %}".into(), FUEL),
        ("2^64 times", "{{ 'x' * 2**64 }}".into(), "too large"),
        ("a long list", "{% set x = [1] %}{% set x = x * 10**9 %}{{ x | length }}".into(), "too large"),
        ("a shorter list", "{% set x = [1] %}{% set x = x * 10**8 %}{{ x | length }}".into(), FUEL),
        ("a list literal repeated", "{{ [1] * 10**8 }}".into(), "not loaded"),
        ("a sum of literals repeated", "{{ ([1] + [2]) * 10**8 ~ 'x' }}".into(), "not loaded"),
        ("a long range", "{{ range(10**12) | list }}".into(), "range has too many elements"),
        ("doubling by ~", often("{% set ns.x = ns.x ~ ns.x %}"), FUEL),
        ("doubling by +", often("{% set ns.x = ns.x + ns.x %}"), FUEL),
        (
            "doubling by a captured block",
            often("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
            FUEL,
        ),
        (
            "doubling by replace",
            often("{% set ns.x = ns.x.replace('a', 'aa').replace('b', 'bb') %}"),
            FUEL,
        ),
        (
            "doubling by the filter replace",
            often("{% set ns.x = ns.x | replace('a', 'aa') %}"),
            FUEL,
        ),
        (
            "every border of a long text replaced by a long text",
            "{% set x = 'x' * 1000000 %}{{ x.replace('', x) }}".into(),
            FUEL,
        ),
        (
            "join",
            "{{ range(99999) | join('x' * 1000000) }}".into(),
            FUEL,
        ),
        ("format", "{{ '%999999999s' | format('x') }}".into(), ""),
        (
            "indent",
            "{{ ('\\n' * 100000) | indent(100000) }}".into(),
            FUEL,
        ),
        (
            "a sum of texts",
            "{{ (['x' * 100000] * 100000) | sum }}".into(),
            "",
        ),
        ("lists doubled by +", often("{% set ns.l = ns.l + ns.l %}"), FUEL),
        ("lists doubled by + in place", "{% set x = [1] %}".to_owned() + &"{% set x = x + x %}".repeat(60), FUEL),
        ("tuples doubled by +", often("{% set ns.l = (1, 2) if i == 0 else ns.l + ns.l %}"), FUEL),
        ("lists doubled by *", often("{% set ns.l = ns.l * 2 %}"), FUEL),
        ("lists doubled by sum", often("{% set ns.l = [ns.l, ns.l] | sum(start=[]) %}"), FUEL),
        ("lists doubled by chain", often("{% set ns.l = ns.l | chain(ns.l) %}"), FUEL),
        ("a list in a list twice, again and again", often("{% set ns.l = [ns.l, ns.l] %}"), FUEL),
        ("a map in a map twice", often("{% set ns.l = {'a': ns.l, 'b': ns.l} %}"), FUEL),
        ("a tuple in a tuple twice", often("{% set ns.l = (ns.l, ns.l) %}"), FUEL),
        ("a dict in a dict twice", often("{% set ns.l = dict(a=ns.l, b=ns.l) %}"), FUEL),
        ("zipped with itself", often("{% set ns.l = ns.l | zip(ns.l) %}"), FUEL),
        ("mapped on itself", often("{% set ns.l = [[ns.l, 1], [ns.l, 2]] | map('first') | list %}"), FUEL),
        (
            "the text of nested lists, thirty levels",
            format!("{{% set x = [1] %}}{}{{{{ (x ~ '') | length }}}}", "{% set x = [x, x] %}".repeat(30)),
            FUEL,
        ),
        (
            "nested lists compared, sixty levels",
            format!("{{% set x = [1] %}}{}{{{{ x == [x, x] }}}}", "{% set x = [x, x] %}".repeat(60)),
            FUEL,
        ),
        (
            "a long text many times in a list, as one text",
            "{% set x = ['x' * 1000000] %}{% set x = x * 1000 %}{{ (x | string) | length }}".into(),
            FUEL,
        ),
        ("a namespace in itself", "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}".into(), "a namespace cannot be kept"),
        ("a namespace in a list in itself", "{% set ns = namespace(x=1) %}{% set ns.x = [ns] %}{{ ns }}".into(), "a namespace cannot be kept"),
        (
            "JSON indented by a gigabyte",
            "{{ [[1], [2]] | tojson(indent=10**9) }}".into(),
            FUEL,
        ),
        (
            "JSON of a deep value, indented",
            format!("{{% set ns = namespace(x=range(20000) | list) %}}{}{{{{ ns.x | tojson(indent=60) }}}}", "{% set ns.x = [ns.x] %}".repeat(60)),
            FUEL,
        ),
        ("JSON of a list that JSON escapes", often("{% set ns.l = ['\\x01' * 7000000] %}{% set ns.x = ns.l | tojson %}"), FUEL),
        ("a text of a list that Python escapes", often("{% set ns.l = ['\\x01' * 7000000] %}{% set ns.x = ns.l ~ '' %}"), FUEL),
        (
            "much kept, then much escaped",
            "{% set a = 'x' * 15000000 %}{% set b = 'y' * 15000000 %}{% set l = ['\\x01' * 16000000] %}{{ l | tojson }}".into(),
            FUEL,
        ),
        ("split into letters by the filter", often("{% set ns.l = ('x ' * 4000000) | split(' ') %}"), FUEL),
        ("many long lines", often("{% set ns.l = ('\\n' * 8000000) | lines %}"), FUEL),
        ("splits within map", "{% set x = ['x ' * 4000000] %}{{ (x | map('split', ' ') | list) | length }}".into(), FUEL),
        ("JSON within map", "{% set x = [[1]] %}{{ x | map('tojson', 10**9) | list }}".into(), FUEL),
        ("a batch filled up", "{{ [1] | batch(10**9, 'x') | list | length }}".into(), FUEL),
        ("slices without end", "{{ [1] | slice(10**9) | list | length }}".into(), FUEL),
        ("a slice of a slice", often("{% set ns.l = (ns.l + ns.l)[::-1] %}"), FUEL),
        ("the engine's own state", "{{ debug() }}".into(), "unknown function"),
        ("splitting", "{% set x = 'x ' * 5000000 %}{{ x.split(' ') | length }}".into(), FUEL),
        (
            "upper of a long text again and again",
            "{% set x = 'x' * 1000000 %}{% for i in range(99999) %}{% set y = x.upper() %}{% endfor %}".into(),
            FUEL,
        ),
        ("an unknown filter", "{{ 'x' | exec }}".into(), "unknown filter"),
        ("an unknown test", "{{ 'x' is evil }}".into(), "unknown test"),
        ("an unknown function", "{{ open('/etc/passwd') }}".into(), "unknown function"),
        ("another template", "{% include 'x' %}".into(), "not loaded"),
        ("another base", "{% extends 'x' %}".into(), "not loaded"),
        ("an import", "{% import 'x' as y %}".into(), "not loaded"),
        (
            "Python's way out",
            "{{ ''.__class__.__mro__ }}".into(),
            "undefined value",
        ),
        (
            "deep parentheses",
            format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)),
            "not loaded",
        ),
        (
            "deep blocks",
            format!("{}{}", "{% if 1 %}".repeat(10_000), "{% endif %}".repeat(10_000)),
            "not loaded",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, template, wanted) in table {
        let found = rendered(&template);
        if !found.contains(wanted) || found.ends_with(" bytes") {
            wrong.push(format!("{what}: {found:?} lacks {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn values_nested_deeply_do_no_harm() {
    // As deep as the fuel goes, then dropped; or walked by what comes after.
    let nest = |body: &str, times: usize, end: &str| {
        format!(
            "{{% set ns = namespace(x='ab') %}}{{% for i in range({times}) %}}{{% for j in range(1000) %}}{body}{{% endfor %}}{{% endfor %}}{end}"
        )
    };
    for body in ["{% set ns.x = [ns.x] %}", "{% set ns.x = {'a': ns.x} %}"] {
        let found = rendered(&nest(body, 1000, ""));
        assert!(found.contains(FUEL), "{body}: {found}");
        for end in [
            "{{ ns.x }}",
            "{{ ns.x == ns.x }}",
            "{{ ns.x | tojson }}",
            "{{ ns.x | string | length }}",
            "{{ ns.x ~ 'a' }}",
            "{{ {ns.x: 1} }}",
            "{{ [ns.x, ns.x] | unique }}",
            "{{ raise_exception(ns.x) }}",
        ] {
            let found = rendered(&nest(body, 3, end));
            assert!(!found.is_empty(), "{body} {end}");
        }
    }
}
