//! Jinja configured for chat templates as in `transformers`: whitespace, `tojson`, `strftime_now`,
//! `raise_exception`, `generation` blocks, methods of Python's strings and dictionaries.
//!
//! Templates come with model files and are not trusted. Fuel limits their computation and the bytes
//! that they create, [`guard`] limits their values, and a thread with a known stack size keeps any
//! remaining recursion off the caller's stack.

mod guard;
mod json;
mod methods;
mod syntax;
mod time;

use std::borrow::Cow;
use std::collections::HashSet;

use minijinja::machinery::{CodeGenerator, eval, make_string_output, parse};
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use guard::Guard;
pub(super) use json::dump;

/// Maximum number of steps of a template; 64 bytes created or scanned also count as one step.
const FUEL: u64 = 1_000_000;
/// Bytes of input that allow one additional step, and the maximum number of such steps.
const BYTES_PER_STEP: usize = 4;
const MORE_FUEL: usize = 500_000;
/// Maximum nesting of macros, loops and blocks.
const RECURSION: usize = 200;
/// Stack size of the thread that parses and renders. Untouched stack costs no memory.
const STACK: usize = 64 << 20;

/// Parses a template.
pub(super) fn check(source: &str) -> Result<(), Error> {
    on_thread(|| {
        let source = without_generation_blocks(source);
        let environment = environment(0);
        syntax::check(&source, environment.syntax())?;
        parse(&source, NAME, environment.syntax().clone()).map(drop)
    })
}

/// Names of the variables that a template reads.
pub(super) fn variables(source: &str) -> Result<HashSet<String>, Error> {
    on_thread(|| {
        let source = without_generation_blocks(source);
        let environment = environment(0);
        syntax::check(&source, environment.syntax())?;
        Ok(environment.template_from_str(&source)?.undeclared_variables(false))
    })
}

/// Renders a template with these variables. `now` is the time passed to it, in seconds since 1970.
pub(super) fn render(
    source: &str,
    variables: impl FnOnce() -> Value + Send,
    now: u64,
) -> Result<String, Error> {
    on_thread(|| {
        let source = without_generation_blocks(source);
        let variables = variables();
        let mut environment = environment(now);
        let guard = Guard::new(&variables);
        let more = (guard.given_bytes() / BYTES_PER_STEP).min(MORE_FUEL);
        environment.set_fuel(Some(FUEL + more as u64));
        guard.install(&mut environment);
        syntax::check(&source, environment.syntax())?;
        let (instructions, blocks) = {
            let parsed = parse(&source, NAME, environment.syntax().clone())?;
            let guarded = syntax::guarded(&parsed);
            drop(parsed);
            let mut code = CodeGenerator::new(NAME, &source);
            code.compile_stmt(&guarded);
            code.finish()
        };
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        eval(&environment, &instructions, variables, &blocks, &mut out, AutoEscape::None)?;
        drop(out);
        Ok(text)
    })
}

/// Name of the template in error messages.
const NAME: &str = "chat template";

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let failed = |what: &str| Error::new(ErrorKind::InvalidOperation, what.to_string());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| failed(&format!("no thread for it: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("the engine panicked")))
    })
}

/// Creates the environment in which templates run.
fn environment<'a>(now: u64) -> Environment<'a> {
    let mut environment = Environment::new();
    let mut syntax = environment.syntax().clone();
    syntax = syntax.to_builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or(syntax);
    environment.set_syntax(syntax);
    environment.set_recursion_limit(RECURSION);
    environment.set_unknown_method_callback(methods::call);
    environment.remove_global("debug");
    environment.add_function("raise_exception", |message: String| -> Result<(), _> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| time::strftime(&format, now));
    environment.add_filter("tojson", json::to_json);
    environment.add_filter("split", methods::split);
    environment.add_filter("lines", methods::lines);
    environment.add_test("iterable", |value: &Value| {
        let kind = value.kind();
        kind != ValueKind::None && (kind == ValueKind::String || value.try_iter().is_ok())
    });
    environment
}

/// Replaces `{% generation %}` blocks, which mark the text that a model is trained on, so that they
/// render as their contents.
pub(super) fn without_generation_blocks(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut pieces = source.split("{%");
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.push_str("{%");
        let (tag, rest) = piece.split_once("%}").unwrap_or((piece, ""));
        let (name, plain) = match tag.trim_matches(['-', '+']).trim() {
            "generation" => ("generation", "if true"),
            "endgeneration" => ("endgeneration", "endif"),
            _ => ("", ""),
        };
        match name {
            "" => out.push_str(piece),
            _ => out.extend([&tag.replacen(name, plain, 1), "%}", rest]),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        // 2024-02-29 23:59:59
        super::render(source, || Value::from(()), 1_709_251_199).unwrap()
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = r#"{"z": 1, "a": [true, none, "é😀<\n"], "e": {}, "l": []}"#;
        let text = |options: &str| render(&format!("{{{{ {value} | tojson{options} }}}}"));
        assert_eq!(text(""), r#"{"z": 1, "a": [true, null, "é😀<\n"], "e": {}, "l": []}"#);
        let ascii = r#"{"z": 1, "a": [true, null, "\u00e9\ud83d\ude00<\n"], "e": {}, "l": []}"#;
        assert_eq!(text("(ensure_ascii=true)"), ascii);
        let tight = r#"{"a":[true,null,"é😀<\n"],"e":{},"l":[],"z":1}"#;
        assert_eq!(text("(sort_keys=true, separators=(',', ':'))"), tight);
        let lines = "{\n  \"z\": 1,\n  \"a\": [\n    true,\n    null,\n    \"é😀<\\n\"\n  ],\n  \"e\": {},\n  \"l\": []\n}";
        assert_eq!(text("(indent=2)"), lines);
    }

    #[test]
    fn the_time_is_written_as_python_writes_it() {
        let format = "{{ strftime_now('%Y-%m-%d %-d %H:%M:%S %I%p %A %a, %B %b %j %y %% %Q') }}";
        let expected = "2024-02-29 29 23:59:59 11PM Thursday Thu, February Feb 060 24 % %Q";
        assert_eq!(render(format), expected);
    }

    #[test]
    fn nothing_is_not_iterable() {
        let test = |value: &str| render(&format!("{{{{ {value} is iterable }}}}"));
        for (value, expected) in
            [("none", "False"), ("3", "False"), ("'a'", "True"), ("{}", "True")]
        {
            assert_eq!(test(value), expected, "{value}");
        }
    }

    #[test]
    fn generation_blocks_render_as_what_is_in_them() {
        let source = "a {%- generation -%} b {%- endgeneration %} c {{ 'generation' }}";
        assert_eq!(render(source), "ab c generation");
    }
}
