//! `vaquita replay`: hits and reads that eviction policies would have had on a recorded routing
//! trace.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use vaquita_runtime::trace::Trace;
use vaquita_runtime::trace::plot::{curves, svg};
use vaquita_runtime::trace::replay::{EvictionRule, replay};

use crate::failure::Result;
use crate::files::write_whole;
use crate::size;
use crate::terminal::table;

/// Arguments of `replay`.
#[derive(clap::Args)]
pub struct Args {
    /// Routing trace in the format `route_trace v1`
    trace: PathBuf,
    /// Memory for experts; repeatable
    #[arg(long, value_name = "SIZE", required_unless_present = "plot", value_parser = size::parse)]
    budget: Vec<u64>,
    /// Replay only this policy: lru, lfu, reuse, belady (the optimum) [default: all]
    #[arg(
        long = "policy",
        visible_alias = "rule",
        value_name = "POLICY",
        requires = "budget",
        value_parser = rule
    )]
    rule: Option<EvictionRule>,
    /// Plot hit rate over memory as SVG, for every policy
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

fn rule(name: &str) -> std::result::Result<EvictionRule, String> {
    EvictionRule::from_name(name)
        .ok_or_else(|| format!("allowed: {}", EvictionRule::ALL.map(EvictionRule::name).join(", ")))
}

#[derive(Serialize)]
struct Row {
    policy: &'static str,
    budget_bytes: u64,
    hit_rate: f64,
    bytes_per_token: f64,
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    let trace = Trace::read(&args.trace)?;
    let rules = args.rule.map_or(EvictionRule::ALL.to_vec(), |rule| vec![rule]);
    let mut rows = Vec::new();
    for budget_bytes in args.budget {
        for rule in &rules {
            let outcome = replay(&trace, *rule, budget_bytes)?;
            rows.push(Row {
                policy: rule.name(),
                budget_bytes,
                hit_rate: outcome.decode.hit_rate(),
                bytes_per_token: outcome.bytes_per_token(),
            });
        }
    }
    if let Some(out) = args.plot {
        write_whole(&out, svg(&curves(&trace)?).as_bytes())?;
        eprintln!("{}: hit rates of all policies, drawn", out.display());
    }
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&rows)?)?;
        return Ok(());
    }
    if rows.is_empty() {
        return Ok(()); // only drawn
    }
    let mut cells = vec![["policy", "budget", "hits", "read per token"].map(String::from).to_vec()];
    cells.extend(rows.iter().map(|row| {
        vec![
            row.policy.to_string(),
            size::show(row.budget_bytes),
            format!("{:.2}%", row.hit_rate * 100.0),
            size::show(row.bytes_per_token as u64),
        ]
    }));
    write!(io::stdout(), "{}", table(&cells))?;
    Ok(())
}
