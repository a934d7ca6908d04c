//! Chat templates come with model files, so they may be anything. Whatever one does, rendering ends within 5 s and 256 MiB,
//! with a text or with an error, and never takes the process with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use vaquita_runtime::session::chat::{ChatError, ChatOptions, ChatTemplate, Message};

/// Counts what is allocated.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: it allocates as `System` does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Stack that a rendering may touch, beside what it allocates.
const STACK: usize = 64 << 20;
const MEMORY: usize = (256 << 20) - STACK;
const TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 5 });

/// Renders a template and holds it to the limits.
fn render(name: &str, source: &str) -> Result<String, ChatError> {
    let calls = json!([{"function": {"name": "f", "arguments": {"a": [1, 2, {"b": null}]}}}]);
    let messages = [
        Message::new("user", "Hi <there>"),
        Message { tool_calls: Some(calls), ..Message::new("assistant", "") },
        Message::new("tool", "3"),
    ];
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let text = ChatTemplate::new(source)
        .and_then(|template| template.render(&messages, &ChatOptions::default()));
    let (time, peak) = (start.elapsed(), PEAK.load(Ordering::Relaxed) - before);
    let outcome = match &text {
        Ok(text) => format!("{} bytes", text.len()),
        Err(error) => error.to_string(),
    };
    if std::env::var_os("SHOW").is_some() {
        println!("{name}: {:.2?}, {} MiB, {:.100}", time, peak >> 20, outcome);
    }
    assert!(peak < MEMORY, "{name}: {} MiB: {outcome:.200}", peak >> 20);
    assert!(time < TIME, "{name}: {time:.1?}: {outcome:.200}");
    text
}

fn refused(name: &str, source: &str) {
    let error = render(name, source).expect_err(name).to_string();
    assert!(error.contains("without it") && error.len() < 3000, "{name}: {error}");
}

fn bounded(name: &str, source: &str) {
    if let Err(error) = render(name, source) {
        let error = error.to_string();
        assert!(error.contains("without it") && error.len() < 3000, "{name}: {error}");
    }
}

/// Doubles `ns.x` with an expression, and then does something with it.
fn doubled(first: &str, times: usize, step: &str, then: &str) -> String {
    format!(
        "{{% set ns = namespace(x={first}) %}}{{% for i in range({times}) %}}\
         {{% set ns.x = {step} %}}{{% endfor %}}{then}"
    )
}

/// Runs cases in a process of their own, since what is counted is the process's: starts this program
/// again for the test of that name.
fn alone(test: &str, cases: fn()) {
    const STARTED: &str = "VAQUITA_TEST_ALONE";
    if std::env::var_os(STARTED).is_some() {
        return cases();
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let ended = again.args([test, "--exact", "--nocapture"]).env(STARTED, "1").output().unwrap();
    let said =
        [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{}", said.concat());
    assert!(ended.status.success(), "{test}: {}", ended.status);
}

#[test]
fn templates_and_values_that_nest_end_in_time_and_memory() {
    alone("templates_and_values_that_nest_end_in_time_and_memory", nesting);
}

#[test]
fn values_that_double_end_in_time_and_memory() {
    alone("values_that_double_end_in_time_and_memory", doubling);
}

#[test]
fn what_is_large_at_once_ends_in_time_and_memory() {
    alone("what_is_large_at_once_ends_in_time_and_memory", large);
}

#[test]
fn what_is_slow_ends_in_time_and_memory() {
    alone("what_is_slow_ends_in_time_and_memory", slow);
}

fn nesting() {
    let long = |first: &str, part: &str, last: &str| {
        let source = format!("{first}{}{last}", part.repeat(80_000 / part.len().min(4)));
        source.chars().take(250_000).collect::<String>() + last
    };
    // Chains on which parsers, compilers and destructors recurse.
    for (name, source) in [
        ("not", long("{{ ", "not ", "x }}")),
        ("minus", long("{{ ", "-", "1 }}")),
        ("tilde", long("{{ 1", " ~1", " }}")),
        ("attributes", long("{{ x", ".a", " }}")),
        ("filters", long("{{ x", "|e", " }}")),
        ("items", long("{{ x", "[0]", " }}")),
        ("calls", long("{{ x", "()", " }}")),
        ("powers", long("{{ 1", "**1", " }}")),
        ("ors", long("{{ 1", " or x", " }}")),
        ("tests", long("{{ x", " is none", " }}")),
        ("conditionals", long("{{ 1", " if x else 1", " }}")),
        ("brackets", long("{{ ", "[", "")),
        ("parentheses", long("{{ ", "(", "")),
        ("braces", long("{{ ", "{1:", "")),
        ("ifs", long("", "{% if 1 %}", "")),
        ("fors", long("", "{% for i in x %}", "")),
        ("elifs", long("{% if x %}", "{% elif x %}", "{% endif %}")),
        ("sets", long("", "{% set x %}", "")),
        ("macros", long("", "{% macro m() %}", "")),
        ("comparisons", long("{{ 1", " < 2", " }}")),
    ] {
        refused(name, &source);
    }

    // Values that nest, and what recurses on them.
    for step in ["[ns.x]", "(ns.x,)", "{'a': ns.x}", "[ns.x, 1]", "[[[[[[[[[[ns.x]]]]]]]]]]"] {
        for then in [
            "{{ ns.x | tojson }}",
            "{{ ns.x | string }}",
            "{{ ns.x }}",
            "{{ ns.x == ns.x }}",
            "{{ [ns.x, ns.x] | sort }}",
            "{{ ns.x ~ '' }}",
            "",
        ] {
            refused(step, &doubled("1", 99_999, step, then));
        }
    }
    let source = "{% set x = 1 %}".to_string() + &"{% set x=[x] %}".repeat(16_000) + "{{ x }}";
    refused("straight", &source);
    refused("cycle", "{% set a = namespace() %}{% set a.b = a %}{{ a }}");
    refused("cycle in a list", "{% set a = namespace() %}{% set a.b = [a] %}{{ a | tojson }}");
    refused(
        "cycle of two",
        "{% set a = namespace() %}{% set b = namespace() %}{% set a.b = b %}{% set b.a = a %}{{ a }}",
    );
    refused("macro", "{% macro f(x) %}{{ f([[[[[[x]]]]]]) }}{% endmacro %}{{ f(1) }}");
    refused("recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
    refused("loop", "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}");
}

fn doubling() {
    for (first, step) in [
        ("'ab'", "ns.x ~ ns.x"),
        ("'ab'", "ns.x + ns.x"),
        ("'ab'", "ns.x * 2"),
        ("'ab'", "[ns.x, ns.x] | join"),
        ("'ab'", "''.join([ns.x, ns.x])"),
        ("'ab'", "'%s%s' | format(ns.x, ns.x)"),
        ("'ab'", "'{}{}'.format(ns.x, ns.x)"),
        ("'ab'", "ns.x.replace('a', 'aba')"),
        ("'ab'", "ns.x | replace('a', 'aba')"),
        ("'ab'", "ns.x.replace('', 'a')"),
        ("'ab'", "[ns.x, ns.x] | string"),
        ("'ab'", "[ns.x, ns.x] | tojson"),
        ("'\"'", "ns.x | tojson"),
        ("'<'", "ns.x | e"),
        ("'a'", "ns.x | indent(1000, true)"),
        ("[1]", "ns.x + ns.x"),
        ("[1]", "ns.x * 2"),
        ("[1]", "[ns.x, ns.x]"),
        ("[1]", "{'a': ns.x, 'b': ns.x}"),
        ("(1,)", "ns.x + ns.x"),
        ("[1]", "(ns.x + ns.x) | list"),
        ("[[1]]", "ns.x + ns.x | map('list') | list"),
        ("[1]", "[ns.x + ns.x] | sum(start=[])"),
    ] {
        for then in ["{{ ns.x }}", "{% set y %}{{ ns.x }}{% endset %}", "{{ ns.x | length }}"] {
            bounded(step, &doubled(first, 60, step, then));
        }
    }
}

fn large() {
    let kib = "{% set k = 'ab,c' * 256 %}";
    let mib = "{% set k = 'ab,c' * 262144 %}";
    for (name, source) in [
        ("repeat", "{{ 'x' * 90000000 }}".into()),
        ("range", "{{ range(99999) | list | string * 1000 }}".into()),
        ("lists", "{% for a in range(99999) %}{{ [1] * 90000000 }}{% endfor %}".into()),
        ("flat", "{{ ([[1] * 99999999] * 99999999) | tojson }}".into()),
        ("product", "{{ ([1] * 9999 * 9999 * 9999) ~ 'x' }}".into()),
        ("width", "{{ '%999999999d' | format(1) }}".into()),
        ("width of a method", "{{ '{:999999999}'.format(1) }}".into()),
        ("precision", "{{ '{:.999999999f}'.format(1.0) }}".into()),
        ("indent", "{{ 'a\nb' | indent(999999999) }}".into()),
        ("indent of json", "{{ [[[1]]] | tojson(indent=999999999) * 9999999 }}".into()),
        ("slices", "{{ [1] | slice(999999999) | list }}".into()),
        ("batches", "{{ [1] | batch(999999999, 0) | list }}".into()),
        ("raw", format!("{{% for i in range(99999) %}}{}{{% endfor %}}", "x".repeat(200_000))),
        (
            "captured raw",
            format!(
                "{{% set y %}}{{% for i in range(99999) %}}{}{{% endfor %}}{{% endset %}}",
                "x".repeat(200_000)
            ),
        ),
        ("written", format!("{mib}{{% for i in range(9999) %}}{{{{ k }}}}{{% endfor %}}")),
        ("split", format!("{mib}{{% for i in range(99) %}}{{% set ns = k.split(',') %}}{{% endfor %}}{{{{ (k * 40).split('') | length }}}}")),
        ("split filter", format!("{mib}{{{{ (k * 30) | split('c') | length }}}}")),
        ("characters", format!("{mib}{{{{ (k * 30) | list | length }}}}")),
        ("lines", "{{ ('\n' * 30000000) | lines | length }}".into()),
        ("lines of a method", "{{ ('\n' * 30000000).splitlines() | length }}".into()),
        ("reversed", format!("{mib}{{{{ (k * 30) | reverse | list | length }}}}")),
        ("sorted", format!("{mib}{{{{ ((k * 30) | list | sort) ~ '' }}}}")),
        ("many in one", format!("{mib}{{{{ [{}] ~ '' }}}}", "k,".repeat(900))),
        ("nested many", format!("{kib}{{% set l = [{}] %}}{{% set l = [{}] %}}{{{{ l ~ l }}}}", "k,".repeat(900), "l,".repeat(900))),
        ("messages", format!("{{% set y %}}{{{{ [{}] }}}}{{% endset %}}{{{{ y * 999999 }}}}", "messages,".repeat(900))),
        ("message of an error", "{{ raise_exception('x' * 30000000) }}".into()),
        ("operands of an error", "{{ ('x' * 9000000) - ('y' * 9000000) }}".into()),
        ("attribute", format!("{{{{ [1] | map(attribute='{}') | list }}}}", "a.".repeat(90_000))),
        ("join", "{{ ([1] * 99999) | join('x' * 99999) }}".into()),
        ("join of a method", "{{ ('x' * 99999).join(range(99999)) }}".into()),
        ("dict", "{% set ns = namespace(x={}) %}{% for i in range(99999) %}{% for j in range(99999) %}{% set ns.x = dict(ns.x, **{'k' ~ i ~ j: 1}) %}{% endfor %}{% endfor %}".into()),
        ("appended", doubled("[]", 99_999, "ns.x + [1]", "{{ ns.x | length }}")),
        ("grouped", "{{ (range(99999) | list * 999) | groupby('x') | list }}".into()),
        ("unique", "{{ (range(99999) | list * 999) | unique | list }}".into()),
        ("debug", "{{ debug() }}".into()),
        ("date", "{{ strftime_now('%A' * 20000000) | length }}".into()),
        ("power", "{% for i in range(99999) %}{% for j in range(99999) %}{{ 2 ** 100 }}{% endfor %}{% endfor %}".into()),
    ] {
        bounded(name, &source);
    }
}

fn slow() {
    let two = "{% set a = 'x' * 9000000 ~ 'y' %}{% set b = 'x' * 9000000 ~ 'z' %}";
    for (name, body) in [
        ("compared", "{% if a == b %}{% endif %}"),
        ("ordered", "{% if a < b %}{% endif %}"),
        ("contained", "{% if 'zz' in a %}{% endif %}"),
        ("contained in a list", "{% if a in [b, b, b] %}{% endif %}"),
        ("counted", "{% if a.count('xy') %}{% endif %}"),
        ("searched", "{% if a.find('z') %}{% endif %}"),
        ("stripped", "{% if a.strip(b) %}{% endif %}"),
        ("tested", "{% if a is eq(b) %}{% endif %}"),
        ("lower", "{% if a is lower %}{% endif %}"),
        ("ascii", "{% if a.isascii() %}{% endif %}"),
        ("length", "{% if a | length %}{% endif %}"),
        ("starts", "{% if a.startswith((b, b, b)) %}{% endif %}"),
        ("sliced", "{% if a[5000000:5000001] %}{% endif %}"),
        ("indexed", "{% if a[8000000] %}{% endif %}"),
        ("key", "{% if {a: 1}[b] %}{% endif %}"),
        ("last", "{% if a | last %}{% endif %}"),
        ("sorted", "{% if [a, b, a, b] | sort %}{% endif %}"),
        ("changed", "{% if loop.changed(a) %}{% endif %}"),
    ] {
        bounded(
            name,
            &format!(
                "{two}{{% for i in range(99999) %}}{{% for j in range(99999) %}}{body}{{% endfor %}}{{% endfor %}}"
            ),
        );
    }
    for (name, source) in [
        ("empty", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        (
            "conditions",
            "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
        ),
        (
            "index",
            "{% set x = range(99999) | list %}{% for a in x %}{% for b in x %}{{ x[-1] }}{% endfor %}{% endfor %}",
        ),
        (
            "lazily indexed",
            "{% for a in range(99999) %}{{ (range(99999) | map('string'))[99998] }}{% endfor %}",
        ),
        (
            "selected",
            "{% for a in range(99999) %}{% if range(99999) | select('eq', 'x') | list %}{% endif %}{% endfor %}",
        ),
        (
            "called",
            "{% macro f() %}{% endmacro %}{% for a in range(99999) %}{% for b in range(99999) %}{{ f() }}{% endfor %}{% endfor %}",
        ),
    ] {
        bounded(name, source);
    }
}

#[test]
fn sane_templates_of_some_size_render() {
    let messages: Vec<Message> = (0..2000)
        .map(|i| Message::new(["user", "assistant"][i % 2], "Some words of a turn. ".repeat(20)))
        .collect();
    let source = "{%- set ns = namespace(kept=[], last=none) -%}\
        {%- for m in messages[::-1] -%}{%- if m.role == 'user' and ns.last is none -%}\
        {%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}\
        {%- for m in messages -%}{%- set content = m.content | trim -%}\
        {%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}\
        {{- '<|' + m.role + '|>' + content ~ '<|end|>' -}}{%- endfor -%}";
    let text = ChatTemplate::new(source).unwrap().render(&messages, &ChatOptions::default());
    assert_eq!(text.unwrap().matches("<|end|>").count(), 2000);
    let elifs = "{% elif x == 2 %}b".repeat(300);
    let source =
        format!("{{% if x %}}a{elifs}{{% else %}}c{{% endif %}}{{{{ 1{} }}}}", " ~ 1".repeat(1000));
    let text = ChatTemplate::new(source).unwrap().render(&[], &ChatOptions::default()).unwrap();
    assert_eq!(text, format!("c{}", "1".repeat(1001)));
}
