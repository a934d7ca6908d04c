//! Random schedules of requests to an engine: they come, are cancelled and end, with slots, slices,
//! priorities, threads, instruction sets, memory for experts, drafts and kept prompts at random. Each
//! answer has the bits that it has alone, on one thread, resident, without drafts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vaquita_lcg::Lcg;
use vaquita_runtime::engine::{
    Counters, Engine, EngineModel, EngineOptions, Priority, PromptCacheOptions, Refused, Request,
};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::session::draft::DraftMode;
use vaquita_tests::engine::{CONTEXT, Subject, ask, assert_same, parts};

/// Runs one schedule. Prompts are kept in memory and in a folder with those of earlier schedules, or
/// not.
fn schedule(subject: &Subject, seed: u64, folder: &Path) -> Counters {
    let mut random = Lcg(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let engine = engine(subject, &mut random, folder);
    let (mut asked, mut refused, mut accepted) = (Vec::new(), 0, 0);
    for _ in 0..6 + random.below(6) {
        let case = random.below(subject.cases.len());
        let priorities = [Priority::Foreground, Priority::Normal, Priority::Background];
        let request = Request {
            client: format!("client {}", random.below(3)),
            priority: priorities[random.below(3)],
            uncached: random.below(6) == 0,
            ..subject.cases[case].0.clone()
        };
        match ask(&engine, &request) {
            Ok(one) => {
                accepted += 1;
                match random.below(5) {
                    0 => one.ticket.cancel(),
                    1 => {
                        one.next_token();
                        one.ticket.cancel();
                    }
                    2 => drop(one.next_token()),
                    _ => {}
                }
                asked.push((case, one));
            }
            Err(Refused::QueueFull { .. } | Refused::ClientShare { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    for (case, one) in asked {
        assert_same(&one.finished().generation, &subject.cases[case].1);
    }
    let status = engine.status();
    assert_eq!((status.running, status.queued, status.cache_tokens_used), (0, 0, 0));
    let counters = status.counters;
    assert_eq!((counters.refused.all(), counters.accepted), (refused, accepted));
    assert_eq!(counters.finished + counters.cancelled, accepted);
    counters
}

fn engine(subject: &Subject, random: &mut Lcg, folder: &Path) -> Engine {
    let gaps = [None, Some(Duration::ZERO), Some(Duration::from_secs(1))];
    let options = EngineOptions {
        slots: 1 + random.below(4),
        queue: 4 + random.below(8),
        max_gap: gaps[random.below(3)],
        cache_tokens: [None, Some(CONTEXT), Some(2 * CONTEXT)][random.below(3)],
        prompts: PromptCacheOptions {
            memory: [0, 200 << 10, 1 << 30][random.below(3)],
            folder: [None, Some(folder.to_path_buf())][random.below(2)].clone(),
            disk: [1 << 20, 1 << 30][random.below(2)],
            ..PromptCacheOptions::default()
        },
        ..EngineOptions::default()
    };
    let has_experts = subject.model.config().moe.n_routed_experts > 0;
    let model = match random.below(3) {
        0 => subject.model.clone(),
        _ if !has_experts => subject.model.clone(),
        1 => subject.streamed(None).model,
        _ => {
            let least = subject.streamed(None).store.index().least_bytes();
            subject.streamed(Some((2 + random.below(6)) * least)).model
        }
    };
    let drafts = match random.below(4) {
        0 => DraftMode::Off,
        1 => DraftMode::Lookup(1 + random.below(4)),
        _ if model.has_mtp() => DraftMode::Mtp(1 + random.below(3)),
        _ => DraftMode::Lookup(2),
    };
    let tiers = Tier::available();
    let threads = 1 + random.below(3);
    let mut parts = parts(&model, &subject.tokenizer, threads, 1 + random.below(48));
    parts.session.tier = tiers[random.below(tiers.len())];
    Engine::start(EngineModel { drafts, ..parts }, options).unwrap()
}

/// Random schedules per model; more with `VAQUITA_SCHEDULES`.
fn schedules() -> u64 {
    std::env::var("VAQUITA_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

fn check(subject: Subject) {
    let subject = Arc::new(subject);
    let folder = tempfile::tempdir().unwrap();
    let keeps_states = subject.model.config().recurrence.is_some(); // which draft nothing
    let (mut drafted, mut accepted, mut known, mut read) = (0, 0, 0, 0);
    // What is still kept when it is asked for again depends on time as well as on chance: a few
    // schedules more are run where nothing was.
    for seed in 0..schedules() + 100 {
        let counters = schedule(&subject, seed, &folder.path().join("prompts"));
        drafted += counters.drafted.iter().sum::<u64>();
        accepted += counters.accepted_drafts.iter().sum::<u64>();
        known += counters.cached_tokens;
        read += counters.cached_tokens_from_disk;
        let all_was_tried = known > read && read > 0 && (keeps_states || drafted > 0);
        if all_was_tried && seed + 1 >= schedules() {
            break;
        }
    }
    println!("{drafted} drafted, {accepted} accepted, {known} known, {read} of them from disk");
    assert!(known > read && read > 0, "some prompts are known");
    assert!(keeps_states || drafted > 0, "some tokens are drafted");
}

/// Latents.
#[test]
fn deepseek_v3() {
    check(Subject::golden_file("deepseek-v3"));
}

/// Keys and values.
#[test]
fn qwen3_moe() {
    check(Subject::golden_file("qwen3-moe"));
}

/// Windows and sinks.
#[test]
fn gpt_oss() {
    check(Subject::golden_file("gpt-oss"));
}

/// Short convolutions.
#[test]
fn lfm2_moe() {
    check(Subject::golden_file("lfm2-moe"));
}

/// States.
#[test]
fn qwen3_next() {
    check(Subject::golden_file("qwen3-next"));
}

/// States with a decay for each channel, beside latents.
#[test]
fn ling_3() {
    check(Subject::golden_file("ling-3"));
}

/// The trained model, with its multi-token-prediction layer.
#[test]
fn the_reference_model() {
    check(Subject::reference_file());
}
