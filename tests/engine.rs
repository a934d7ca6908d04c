//! Requests to an engine, and the answers that they have alone.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;
use vaquita_lcg::Lcg;
use vaquita_runtime::engine::{
    Engine, EngineError, EngineModel, EngineOptions, Finished, Notice, Refused, Request, Ticket,
};
use vaquita_runtime::host::Host;
use vaquita_runtime::measure::sampler::MeterSampler;
use vaquita_runtime::model::Model;
use vaquita_runtime::session::draft::DraftMode;
use vaquita_runtime::session::generate::{Generation, GenerationOptions, StopReason, generate};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;

use crate::store::{Setting, Streamed, quantize_to, resident, streamed};
use crate::{golden, open_folder, reference};

/// Context of the engines.
pub const CONTEXT: usize = 160;

/// A model for an engine, without a meter and without drafts.
pub fn parts(
    model: &Arc<Model>,
    tokenizer: &Arc<Tokenizer>,
    threads: usize,
    chunk: usize,
) -> EngineModel {
    EngineModel {
        model: model.clone(),
        pool: Arc::new(Pool::new(threads)),
        tokenizer: tokenizer.clone(),
        session: SessionOptions {
            context: CONTEXT,
            prefill_chunk: chunk,
            ..SessionOptions::default()
        },
        drafts: DraftMode::Off,
        energy: Arc::new(|| MeterSampler::start(None, Arc::new(Host::live()))),
        fingerprint: Some(7),
        cache_bytes: None,
        held: None,
    }
}

fn alone(parts: &EngineModel, request: &Request) -> Generation {
    let mut session = Session::new(parts.model.clone(), parts.pool.clone(), parts.session.clone());
    let Request { prompt, options, .. } = request;
    let answer = generate(&mut session, &parts.tokenizer, prompt, options, &mut |_| {
        ControlFlow::Continue(())
    });
    answer.expect("it is answered alone")
}

/// A model with prompts and their answers, each computed alone on one thread.
pub struct Subject {
    /// The model, resident.
    pub model: Arc<Model>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Requests and their answers.
    pub cases: Vec<(Request, Generation)>,
    /// A folder with `model.gguf`, if the model is quantized.
    file: Option<TempDir>,
}

impl Subject {
    /// Prompts that share prefixes of several lengths, answered with several options.
    fn new(model: Arc<Model>, prompts: &[Vec<u32>], file: Option<TempDir>) -> Self {
        let tokenizer = Tokenizer::from_folder(&reference()).expect("it has a tokenizer");
        let tokenizer = Arc::new(tokenizer);
        let one = parts(&model, &tokenizer, 1, 64);
        let case = |(at, prompt): (usize, &Vec<u32>)| {
            let drawn = SamplingOptions { temperature: 1.0, seed: at as u64, ..Default::default() };
            let sampling = match at % 4 {
                0 | 2 => SamplingOptions::greedy(), // which repeats itself
                1 => SamplingOptions { top_k: 2, ..drawn },
                _ => drawn,
            };
            let options = GenerationOptions {
                sampling,
                max_tokens: Some(3 + at * 7 % 40),
                logprobs: Some(4),
                ..GenerationOptions::default()
            };
            let request = Request { prompt: prompt.clone(), options, ..Request::default() };
            let generation = alone(&one, &request);
            (request, generation)
        };
        let cases = prompts.iter().enumerate().map(case).collect();
        Self { model, tokenizer, cases, file }
    }

    /// The trained model.
    pub fn reference() -> Self {
        Self::new(open_folder(&reference()), &questions(), None)
    }

    /// The trained model, quantized.
    pub fn reference_file() -> Self {
        let (model, folder) = file(&reference());
        Self::new(model, &questions(), Some(folder))
    }

    /// A random model.
    pub fn golden(name: &str) -> Self {
        let model = open_folder(&golden(name));
        let prompts = random_prompts(model.config().vocab_size);
        Self::new(model, &prompts, None)
    }

    /// A random model, quantized. Its prompts have few different tokens, so that they repeat.
    pub fn golden_file(name: &str) -> Self {
        let (model, folder) = file(&golden(name));
        Self::new(model, &random_prompts(6), Some(folder))
    }

    /// The quantized model with streamed experts.
    ///
    /// # Panics
    /// If the model is not quantized.
    pub fn streamed(&self, budget: Option<usize>) -> Streamed {
        let folder = self.file.as_ref().expect("the model is in a file");
        streamed(&folder.path().join("model.gguf"), Setting { budget, ..Setting::default() })
    }

    /// An engine for the model.
    pub fn engine(&self, threads: usize, chunk: usize, options: EngineOptions) -> Engine {
        let parts = parts(&self.model, &self.tokenizer, threads, chunk);
        Engine::start(parts, options).expect("it starts")
    }
}

fn file(source: &Path) -> (Arc<Model>, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    quantize_to(source, &path, None);
    (resident(&path), folder)
}

fn questions() -> Vec<Vec<u32>> {
    let tokenizer = Tokenizer::from_folder(&reference()).expect("it has a tokenizer");
    let questions = ["1+1?", "Name a color.", "What is 12 + 30?", "What is 12 + 31?", "Hi"];
    let prompts = questions.iter().flat_map(|question| {
        let prompt = format!("<｜User｜>{question}<｜Assistant｜><think>\n");
        let prompt = tokenizer.encode(&prompt, true).expect("text has tokens");
        // The same one later, as the next turn has it.
        let longer = [&prompt[..], &prompt[1..], &prompt[1..]].concat();
        [prompt, longer]
    });
    prompts.collect()
}

fn random_prompts(tokens: usize) -> Vec<Vec<u32>> {
    let mut random = Lcg(7);
    let mut prompt =
        |len: usize| -> Vec<u32> { (0..len).map(|_| random.below(tokens) as u32).collect() };
    let shared = prompt(30);
    let lengths = [1, 2, 40, 7, 100, 63, 64, 65];
    let prompts = lengths.map(|len| {
        let own = prompt(len);
        if len % 2 == 0 { [&shared[..len.min(30)], &own[..len / 2]].concat() } else { own }
    });
    prompts.to_vec()
}

/// A submitted request and its notices.
pub struct Asked {
    /// Its ticket.
    pub ticket: Ticket,
    notices: Receiver<Notice>,
    /// The end, if it came while a token was awaited.
    done: OnceCell<Result<Box<Finished>, EngineError>>,
}

/// Submits a request.
pub fn ask(engine: &Engine, request: &Request) -> Result<Asked, Refused> {
    let (sender, notices) = channel();
    let sink = Box::new(move |notice| drop(sender.send(notice)));
    Ok(Asked::new(engine.submit(request.clone(), sink)?, notices))
}

impl Asked {
    /// A request whose notices arrive at `notices`.
    pub fn new(ticket: Ticket, notices: Receiver<Notice>) -> Self {
        Self { ticket, notices, done: OnceCell::new() }
    }

    /// Waits for the next token; `None` if the end comes first.
    pub fn next_token(&self) -> Option<u32> {
        for notice in &self.notices {
            match notice {
                Notice::Token(token) => return Some(token),
                Notice::Done(result) => assert!(self.done.set(result).is_ok(), "it ends once"),
                _ => {}
            }
        }
        None
    }

    /// The end, after which nothing may come.
    pub fn result(self) -> Result<Box<Finished>, EngineError> {
        let mut done = self.done.into_inner();
        for notice in self.notices {
            assert!(done.is_none(), "{notice:?} after the end");
            if let Notice::Done(result) = notice {
                done = Some(result);
            }
        }
        done.expect("every request ends with `Done`")
    }

    /// The answer.
    pub fn finished(self) -> Box<Finished> {
        self.result().expect("it is answered")
    }
}

/// Compares all that an answer is; its tokens may be fewer if it was cancelled.
pub fn assert_same(found: &Generation, alone: &Generation) {
    if found.stop == StopReason::Cancelled {
        let count = found.tokens.len();
        assert_eq!(found.tokens, alone.tokens[..count]);
        assert_eq!(found.logprobs[..], alone.logprobs[..count]);
        return;
    }
    assert_eq!(found.tokens, alone.tokens);
    assert_eq!(found.logprobs, alone.logprobs);
    assert_eq!((&found.answer, &found.reasoning), (&alone.answer, &alone.reasoning));
    assert_eq!((found.stop, found.prompt_tokens), (alone.stop, alone.prompt_tokens));
}
