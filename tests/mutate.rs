//! Mutates inputs of every kind in this process and counts them, without a fuzzing engine, on stable
//! Rust: `cargo run --profile checked -p vaquita-tests --example mutate -- [SECONDS] [TARGET...]`
//! (10 seconds for each target by default). The profile has overflow checks. A panic, an input that
//! takes longer than 10 seconds (twice: a machine has other work, too), or more memory than a
//! multiple of its size, is written to a file and fails the run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vaquita_lcg::Lcg;
use vaquita_tests::fuzz::{TARGETS, Target, seeds, target};

/// Longest time for one input.
const MOST_TIME: Duration = Duration::from_secs(10);
/// Bytes of memory per byte of input, besides what a target takes for any.
const MULTIPLE: usize = 32;
/// Bytes at the start of an input in which most mutations are.
const START: usize = 4096;
/// Numbers at which code goes wrong.
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];
/// Pieces of texts.
const WORDS: [&str; 20] = [
    "null",
    "true",
    "-1",
    "1e999",
    "\"\"",
    "[]",
    "{}",
    "[[",
    "{\"a\":",
    "{{",
    "}}",
    "{% for a in b %}",
    "{% endfor %}",
    "|tojson",
    "<think>",
    "</think>",
    "<tool_call>",
    "<|channel|>",
    "\u{1f40b}",
    "99999999999999999999",
];

/// Counts the bytes in use, and the most that were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let used = USED.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(used, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let seconds = arguments.peek().and_then(|text| text.parse().ok());
    if seconds.is_some() {
        arguments.next();
    }
    let time = Duration::from_secs(seconds.unwrap_or(10));
    let names: Vec<String> = arguments.collect();
    let chosen: Vec<&Target> = match names.is_empty() {
        true => TARGETS.iter().collect(),
        false => names.iter().map(|name| target(name).expect("a target's name")).collect(),
    };
    std::panic::set_hook(Box::new(|_| {})); // panics are counted
    let (mut failures, mut total) = (0, 0);
    for target in chosen {
        let found = attack(target, time);
        println!(
            "{}: {} inputs, {} failures, at most {:.1} MiB and {:.1} s for one",
            target.name,
            found.inputs,
            found.failures,
            found.most_bytes as f64 / f64::from(1 << 20),
            found.most_time.as_secs_f64(),
        );
        failures += found.failures;
        total += found.inputs;
    }
    println!("{total} inputs, {failures} failures");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Found {
    inputs: u64,
    failures: u64,
    most_bytes: usize,
    most_time: Duration,
}

fn attack(target: &Target, time: Duration) -> Found {
    let seeds = seeds(target.name);
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    let since = Instant::now();
    // Another sequence in every run.
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut random = Lcg(seed.map_or(1, |time| time.as_nanos() as u64));
    let mut found = Found::default();
    let mut next = seeds.clone().into_iter();
    while since.elapsed() < time {
        let input = next.next().unwrap_or_else(|| mutated(&seeds, &mut random));
        run(target, &input, &mut found);
    }
    found
}

fn run(target: &Target, input: &[u8], found: &mut Found) {
    let before = USED.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let timed = || {
        let since = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        (result, since.elapsed())
    };
    let (mut result, mut time) = timed();
    if time > MOST_TIME {
        (result, time) = timed();
    }
    let bytes = MOST.load(Ordering::Relaxed).saturating_sub(before);
    found.inputs += 1;
    found.most_time = found.most_time.max(time);
    found.most_bytes = found.most_bytes.max(bytes);
    let reason = match result {
        Err(_) => "panics",
        Ok(()) if time > MOST_TIME => "takes too long",
        Ok(()) if bytes > target.fixed + MULTIPLE * input.len() => "takes too much memory",
        Ok(()) => return,
    };
    found.failures += 1;
    if found.failures <= 20 {
        let name = format!("{}-{:08x}", target.name, crc32fast::hash(input));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, input).expect("written");
        println!("{}: {reason}: {} ({bytes} bytes, {time:?})", target.name, path.display());
    }
}

/// A seed with a few changes.
fn mutated(seeds: &[Vec<u8>], random: &mut Lcg) -> Vec<u8> {
    let mut below = |n: usize| random.bits() as usize % n.max(1);
    let mut bytes = seeds[below(seeds.len())].clone();
    for _ in 0..1 + below(4) {
        let within = if below(5) > 0 { bytes.len().min(START) } else { bytes.len() };
        let at = below(within);
        let end = bytes.len().min(at + 1 + below(64));
        match below(10) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            2 if !bytes.is_empty() => bytes[at] = below(256) as u8,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let copy = bytes[at..end].to_vec();
                let to = below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            6 => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len());
                let piece = &other[from..other.len().min(from + 1 + below(256))];
                bytes.splice(at..at, piece.iter().copied());
            }
            7 => {
                let number = NUMBERS[below(NUMBERS.len())].to_le_bytes();
                let len = [1, 2, 4, 8][below(4)].min(bytes.len() - at.min(bytes.len()));
                let at = at.min(bytes.len() - len);
                bytes[at..at + len].copy_from_slice(&number[..len]);
            }
            8 => {
                let word = WORDS[below(WORDS.len())].bytes();
                bytes.splice(at..at, word);
            }
            _ => {
                // One piece many times: nesting, and long runs.
                let piece = bytes[at..end].to_vec();
                let times = 1 << below(10);
                bytes.splice(at..at, piece.repeat(times));
            }
        }
    }
    bytes
}
