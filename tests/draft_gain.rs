//! What drafts bring: answers of the reference model with and without them, in turns, at several
//! temperatures, kinds of text, budgets and numbers of threads. Answers must be the same; times are
//! the result. `cargo run --release -p vaquita-tests --example draft_gain [MODE] [ROUNDS]` (`auto`,
//! 3 by default).

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::draft::{DraftMode, DraftUse, Drafts};
use vaquita_runtime::session::generate::{Generation, GenerationOptions, generate};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::store::{Setting, resident, streamed};
use vaquita_tests::{reference, reference_file};

/// Tokens per answer.
const ANSWER: usize = 160;

/// Prompts of one kind.
struct Kind {
    name: &'static str,
    prompts: Vec<Vec<u32>>,
}

fn kinds(tokenizer: &Tokenizer) -> Vec<Kind> {
    let questions = std::fs::read_to_string(reference().join("eval.jsonl")).expect("questions");
    let questions = questions.lines().step_by(41).take(4).map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["question"].as_str().unwrap_or_default().to_string()
    });
    let foreign =
        ["Wie heißt die Hauptstadt von Frankreich?", "¿Cuánto es 12 + 30?", "东京在哪里？"];
    let prose = ["Once upon a time a whale", "The harbour lay quiet, and the boats"];
    let encode = |text: String| tokenizer.encode(&text, true).expect("text has tokens");
    let chat = |question: String| {
        encode(format!("<｜begin▁of▁sentence｜><｜User｜>{question}<｜Assistant｜><think>\n"))
    };
    vec![
        Kind { name: "its own tasks", prompts: questions.map(chat).collect() },
        Kind { name: "other languages", prompts: foreign.map(|text| chat(text.into())).to_vec() },
        Kind { name: "prose", prompts: prose.map(|text| encode(text.into())).to_vec() },
    ]
}

/// One setting of the comparison.
struct Case<'a> {
    model: &'a Arc<Model>,
    budget: &'static str,
    threads: usize,
    kind: &'a Kind,
    temperature: f32,
}

impl Case<'_> {
    fn answers(&self, tokenizer: &Arc<Tokenizer>, session: &mut Session) -> Vec<Generation> {
        let options = GenerationOptions {
            sampling: SamplingOptions {
                temperature: self.temperature,
                seed: 11,
                ..SamplingOptions::default()
            },
            max_tokens: Some(ANSWER),
            ..GenerationOptions::default()
        };
        let answer = |prompt: &Vec<u32>| {
            generate(session, tokenizer, prompt, &options, &mut |_| ControlFlow::Continue(()))
                .expect("it is answered")
        };
        self.kind.prompts.iter().map(answer).collect()
    }

    /// Decode rates without and with drafts, tokens per second, and what was drafted.
    fn run(&self, tokenizer: &Arc<Tokenizer>, mode: DraftMode, rounds: usize) -> [f64; 2] {
        let pool = Arc::new(Pool::new(self.threads));
        let session = |drafts| {
            let options = SessionOptions { context: 512, ..SessionOptions::default() };
            let mut session = Session::new(self.model.clone(), pool.clone(), options);
            session.draft_with(drafts);
            session
        };
        let mut sessions = [session(None), session(Drafts::new(self.model, CacheType::F16, mode))];
        let expected = self.answers(tokenizer, &mut sessions[0]); // warms up
        let (mut tokens, mut seconds) = ([0; 2], [0.0; 2]);
        for _ in 0..rounds {
            for (at, session) in sessions.iter_mut().enumerate() {
                for (found, expected) in self.answers(tokenizer, session).iter().zip(&expected) {
                    assert_eq!(found.tokens, expected.tokens, "drafts change no answer");
                    tokens[at] += found.tokens.len();
                    seconds[at] += found.decode.as_secs_f64();
                }
            }
        }
        let rates = [0, 1].map(|at| f64::from(tokens[at] as u32) / seconds[at]);
        let used = sessions[1].drafts().map(|drafts| drafts.used().clone()).unwrap_or_default();
        self.print(rates, &used);
        rates
    }

    fn print(&self, [plain, drafted]: [f64; 2], used: &DraftUse) {
        let Self { budget, threads, kind, temperature, .. } = self;
        println!(
            "| {} | {temperature} | {budget} | {threads} | {plain:.0} | {drafted:.0} | {:.2} | {used} |",
            kind.name,
            drafted / plain,
        );
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().map_or(DraftMode::Auto, |mode| {
        DraftMode::parse(&mode).unwrap_or_else(|error| panic!("{error}"))
    });
    let rounds = arguments.next().map_or(3, |rounds| rounds.parse().expect("a number"));
    let tokenizer = Arc::new(Tokenizer::from_folder(&reference()).expect("it has a tokenizer"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.gguf");
    reference_file(&file);
    let whole = resident(&file);
    let part = |share| stream(&file, share);
    let (half, least) = (part(Some(2)), part(None));
    println!("| text | temperature | experts | threads | tokens/s | with drafts | gain | drafts |");
    println!("|---|---|---|---|---|---|---|---|");
    let kinds = kinds(&tokenizer);
    let mut worst = f64::INFINITY;
    for (model, budget) in [(&whole, "all"), (&half, "half"), (&least, "least")] {
        let threads: &[usize] = if budget == "all" { &[1, 2] } else { &[2] };
        let temperatures: &[f32] = if budget == "all" { &[0.0, 0.7, 1.2] } else { &[0.0] };
        for (kind, temperature) in
            kinds.iter().flat_map(|kind| temperatures.iter().map(move |t| (kind, *t)))
        {
            for threads in threads.iter().copied() {
                let case = Case { model, budget, threads, kind, temperature };
                let [plain, drafted] = case.run(&tokenizer, mode, rounds);
                worst = worst.min(drafted / plain);
            }
        }
    }
    println!("least gain: {worst:.2}");
    ExitCode::SUCCESS
}

/// The model with a share of its experts in memory, or with the least that it needs.
fn stream(file: &Path, share: Option<usize>) -> Arc<Model> {
    let open = |budget| streamed(file, Setting { budget, ..Setting::default() });
    match share {
        Some(share) => {
            let all = open(None).store.index().total_bytes();
            open(Some(all / share)).model
        }
        None => open(None).model,
    }
}
