//! Policies, replayed on excerpts of real routing traces and on made-up ones.

use std::path::Path;

use proptest::prelude::*;
use vaquita_runtime::checkpoint::{ExpertId, LayerId};
use vaquita_runtime::experts::policies::{PolicyKind, Shape};
use vaquita_runtime::trace::plot::{curves, svg};
use vaquita_runtime::trace::replay::{EvictionRule, ReplayError, ReplayResult, replay};
use vaquita_runtime::trace::{Trace, TraceVisit};

const MIB: u64 = 1 << 20;
const LRU: EvictionRule = EvictionRule::Policy(PolicyKind::Lru);
const REUSE: EvictionRule = EvictionRule::Policy(PolicyKind::Reuse);

fn excerpt(name: &str) -> Trace {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    Trace::read(&folder.join(format!("{name}.route.csv"))).unwrap()
}

fn cycle(trace: &Trace) -> u64 {
    let of_layer = |bytes: &[u64]| bytes[0] * trace.shape.per_token as u64;
    trace.expert_bytes.chunks(trace.shape.experts).map(of_layer).sum()
}

fn run(trace: &Trace, rule: EvictionRule, budget: u64) -> ReplayResult {
    replay(trace, rule, budget).unwrap()
}

#[test]
fn the_excerpts_hold_what_their_headers_say() {
    let qwen = excerpt("qwen");
    assert_eq!(qwen.shape, Shape { layers: 4, experts: 128, per_token: 6 });
    assert_eq!(qwen.decoded_tokens(), 128);
    let generated = qwen.visits.iter().filter(|visit| !visit.prefill);
    assert!(generated.clone().count() == 4 * 128);
    assert!(generated.into_iter().all(|visit| visit.routed.len() == 6));
    let gptoss = excerpt("gptoss");
    assert_eq!(gptoss.decoded_tokens(), 64);
    let prompt: Vec<_> = gptoss.visits.iter().filter(|visit| visit.prefill).collect();
    assert!(prompt.len() == 6 && prompt.iter().all(|visit| visit.routed.len() > 100));
}

#[test]
fn lru_hits_nothing_below_one_tokens_cycle_and_the_default_does() {
    for (name, at_least) in [("qwen", 0.18), ("gptoss", 0.08)] {
        let trace = excerpt(name);
        let budget = cycle(&trace) * 6 / 10;
        assert_eq!(run(&trace, LRU, budget).decode.hits, 0, "{name}");
        let rate = run(&trace, REUSE, budget).decode.hit_rate();
        assert!(rate >= at_least, "{name}: {rate}");
    }
}

#[test]
fn the_default_is_at_least_as_good_as_lru_and_never_better_than_the_optimum() {
    for name in ["qwen", "gptoss"] {
        let trace = excerpt(name);
        for tenths in [6, 8, 11, 12, 16, 20, 30, 50, 80, 150] {
            let budget = cycle(&trace) * tenths / 10;
            let [lru, ours, best] =
                [LRU, REUSE, EvictionRule::Belady].map(|rule| run(&trace, rule, budget).decode);
            let at = format!("{name} at {} MiB", budget / MIB);
            assert!(ours.hits >= lru.hits, "{at}: {} against {}", ours.hits, lru.hits);
            assert!(ours.hits <= best.hits, "{at}: {} of {}", ours.hits, best.hits);
        }
    }
}

#[test]
fn with_room_for_everything_each_expert_is_read_once_whatever_the_rule() {
    let trace = excerpt("qwen");
    let budget = trace.expert_bytes.iter().sum();
    let mut used: Vec<_> = trace
        .visits
        .iter()
        .flat_map(|visit| visit.routed.iter().map(|expert| (visit.layer, *expert)))
        .collect();
    used.sort_unstable();
    used.dedup();
    for rule in EvictionRule::ALL {
        let run = run(&trace, rule, budget);
        let misses = [run.prefill, run.decode].map(|usage| usage.uses - usage.hits);
        assert_eq!(misses.iter().sum::<u64>(), used.len() as u64, "{}", rule.name());
    }
}

#[test]
fn a_budget_below_one_layer_is_refused_with_the_figures() {
    let trace = excerpt("qwen");
    let Err(ReplayError::Budget { budget, needed, layer }) = replay(&trace, LRU, 8 * MIB) else {
        panic!("six experts of 3 MB do not fit 8 MiB");
    };
    assert_eq!((budget, layer), (8 * MIB, 0));
    assert!(needed > budget && needed <= 6 * 3059712, "{needed}");
}

#[test]
fn what_is_not_a_trace_is_refused_with_the_line() {
    let head = "# route_trace v1\n# model=m n_layer=2 n_expert=4 n_expert_used=1\n";
    let columns = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n";
    let bytes = "# layer=0 expert_bytes=10\n# layer=1 expert_bytes=10\n";
    let cases = [
        ("step,layer\n".to_string(), 1),
        ("# route_trace v1\n".to_string() + columns + "0,1,0,0,0,1,0.5,0,10\n", 3),
        ("# route_trace v1\n# n_layer=9999999 n_expert=1 n_expert_used=1\n".into(), 2),
        ("# route_trace v1\n# n_layer=4096 n_expert=65536 n_expert_used=1\n".into(), 2),
        (format!("{head}{bytes}{columns}0,1,0,2,0,1,0.5,0,10\n"), 6),
        (format!("{head}{bytes}{columns}0,1,0,0,0,4,0.5,0,10\n"), 6),
        (format!("{head}{bytes}{columns}0,1,0,0,0\n"), 6),
        (format!("{head}# layer=0 expert_bytes=-1\n"), 3),
        (format!("{head}{columns}0,1,0,0,0,1,0.5,0,10\n"), 4),
        (
            format!(
                "{head}{bytes}{columns}0,1,0,1,0,1,0.5,0,10\n# n_layer=1 n_expert=4 n_expert_used=1\n"
            ),
            7,
        ),
        (format!("{head}{bytes}# sizes layer=0 1 2 3\n{columns}0,1,0,0,0,1,0.5,0,10\n"), 7),
    ];
    for (text, line) in cases {
        let error = Trace::parse(&text, Path::new("t.csv")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("t.csv, line {line}: ")), "{text}: {error}");
    }
}

#[test]
fn experts_may_differ_in_size() {
    let text = "# route_trace v1\n# n_layer=1 n_expert=3 n_expert_used=1\n\
        # sizes layer=0 10 20 30\n\
        turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n\
        0,1,0,0,0,2,1,0,30\n0,1,1,0,0,0,1,0,10\n0,1,2,0,0,2,1,1,0\n0,1,3,0,0,1,1,0,20\n";
    let trace = Trace::parse(text, Path::new("t.csv")).unwrap();
    let usage = run(&trace, LRU, 40).decode;
    assert_eq!((usage.uses, usage.hits, usage.bytes_read), (4, 1, 60));
}

fn made_up() -> impl Strategy<Value = Trace> {
    let routed = proptest::collection::vec(0usize..8, 2);
    proptest::collection::vec((0usize..3, routed), 1..120).prop_map(|visits| Trace {
        shape: Shape { layers: 3, experts: 8, per_token: 2 },
        expert_bytes: vec![1; 24],
        visits: visits
            .into_iter()
            .map(|(layer, routed)| TraceVisit {
                layer: LayerId(layer),
                prefill: false,
                routed: routed.into_iter().map(ExpertId).collect(),
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn nothing_beats_the_optimum_where_sizes_are_equal_and_visits_are_of_one(
        visits in proptest::collection::vec((0usize..3, 0usize..8), 1..200),
        budget in 1u64..24,
    ) {
        let visits = visits.into_iter().map(|(layer, expert)| TraceVisit {
            layer: LayerId(layer),
            prefill: false,
            routed: vec![ExpertId(expert)],
        });
        let trace = Trace {
            shape: Shape { layers: 3, experts: 8, per_token: 1 },
            expert_bytes: vec![1; 24],
            visits: visits.collect(),
        };
        let best = run(&trace, EvictionRule::Belady, budget).decode.hits;
        for rule in EvictionRule::ALL {
            prop_assert!(run(&trace, rule, budget).decode.hits <= best, "{}", rule.name());
        }
    }

    #[test]
    fn more_memory_never_hurts_lru_and_the_optimum(trace in made_up(), budget in 2u64..23) {
        for rule in [LRU, EvictionRule::Belady] {
            let (less, more) = (run(&trace, rule, budget), run(&trace, rule, budget + 1));
            prop_assert!(less.decode.hits <= more.decode.hits, "{}", rule.name());
        }
    }
}

#[test]
fn a_plot_has_a_rising_curve_for_every_rule() {
    let trace = excerpt("gptoss");
    let curves = curves(&trace).unwrap();
    assert_eq!(curves.len(), EvictionRule::ALL.len());
    for curve in &curves {
        let rates: Vec<f64> = curve.points.iter().map(|point| point.1).collect();
        assert!(rates[0] < 0.3 && rates[rates.len() - 1] > 0.8, "{}", curve.rule.name());
    }
    let svg = svg(&curves);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<polyline").count(), EvictionRule::ALL.len());
}
