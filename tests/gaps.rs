//! Gaps in running answers while a long prompt joins: two answers of the reference model run, with
//! all or half of its experts in memory, and a prompt of 1,000 tokens comes. `cargo run --release -p
//! vaquita-tests --example gaps`.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use vaquita_runtime::engine::{Engine, EngineOptions, Notice, Request};
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_tests::engine::{Subject, ask, parts};

/// Rounds of each setting.
const ROUNDS: usize = 3;

/// Quantiles of sorted times, in milliseconds.
fn show(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        let at = ((times.len() as f64 * share) as usize).min(times.len() - 1);
        times[at].as_secs_f64() * 1e3
    };
    format!("median {:.2} ms, 95% below {:.2} ms, longest {:.2} ms", at(0.5), at(0.95), at(1.0))
}

fn main() {
    let subject = Subject::reference_file();
    let total = subject.streamed(None).store.index().total_bytes();
    let half = subject.streamed(Some(total / 2)).model;
    for (name, model) in [("all experts", subject.model.clone()), ("half of the experts", half)] {
        let mut parts = parts(&model, &subject.tokenizer, 2, 128);
        parts.session.context = 2048;
        let engine = Engine::start(parts, EngineOptions::default());
        let engine = engine.expect("it starts");
        let (mut alone, mut joined, mut reading) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let request = |prompt: Vec<u32>, client: &str, most| Request {
                prompt,
                client: format!("{client} {round}"),
                options: GenerationOptions {
                    sampling: SamplingOptions {
                        logit_bias: vec![(1, -1e9)],
                        ..SamplingOptions::greedy()
                    },
                    max_tokens: Some(most),
                    ..GenerationOptions::default()
                },
                ..Request::default()
            };
            let prompt =
                |len: usize| (0..len).map(|at| (at * 7 + round) as u32 % 1900 + 20).collect();
            let (send, notices) = channel();
            let sink = Box::new(move |notice| drop(send.send((Instant::now(), notice))));
            engine.submit(request(prompt(20), "a", 1500), sink).expect("it is accepted");
            let other = ask(&engine, &request(prompt(30), "b", 1500)).expect("it is accepted");
            std::thread::sleep(Duration::from_millis(30));
            let begun = Instant::now();
            let long = ask(&engine, &request(prompt(1000), "c", 1)).expect("it is accepted");
            long.finished();
            let ended = Instant::now();
            reading.push(ended - begun);
            other.ticket.cancel();
            let tokens = notices.iter().filter(|(_, notice)| matches!(notice, Notice::Token(_)));
            let times: Vec<Instant> = tokens.map(|(at, _)| at).collect();
            for pair in times.windows(2) {
                let gap = pair[1] - pair[0];
                match pair[1] {
                    at if at < begun => alone.push(gap),
                    at if at < ended => joined.push(gap),
                    _ => {}
                }
            }
            other.finished();
        }
        println!("{name}: alone {}", show(&mut alone));
        println!("  while the prompt is read: {}", show(&mut joined));
        println!("  the prompt is answered: {}", show(&mut reading));
    }
}
