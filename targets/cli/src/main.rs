//! The program `vaquita`: quantizes, runs, inspects and measures models.

mod answer;
mod bundle;
mod cache_folder;
mod commands;
mod compute;
mod energy;
mod examples;
mod failure;
mod files;
mod hints;
mod hub;
mod model_argument;
mod penalties;
mod published;
mod sampling;
mod size;
mod slips;
mod stop;
mod streamed;
mod structure;
mod template;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use compute::{Compute, Outlook, Processor};

/// Quantize and run DeepSeek-class mixture-of-experts models on small machines
#[derive(Parser)]
#[command(name = "vaquita", version, about, after_help = examples::ALL)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The arguments of a command, with the engine options that change what it does.
#[derive(Args)]
struct On<O: Args, A: Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    options: O,
}

#[derive(Subcommand)]
enum Command {
    /// Answer one prompt
    #[command(after_help = examples::RUN)]
    Run(Box<On<Compute, commands::run::Args>>),
    /// Chat with a model
    #[command(after_help = examples::CHAT)]
    Chat(Box<On<Compute, commands::chat::Args>>),
    /// Serve a model over HTTP: a chat page, and the APIs of OpenAI, Anthropic and Ollama
    #[command(after_help = examples::SERVE)]
    Serve(Box<On<Compute, commands::serve::Args>>),
    /// Fetch a model of the Hugging Face hub into its cache
    #[command(after_help = examples::PULL)]
    Pull(commands::pull::Args),
    /// List and remove the models in the hub's cache
    #[command(after_help = examples::MODELS)]
    Models(commands::models::Args),
    /// Quantize a checkpoint (a Hugging Face folder or a GGUF file)
    #[command(after_help = examples::QUANTIZE)]
    Quantize(On<Processor, commands::quantize::Args>),
    /// Join the parts that `quantize --part` made into one file
    #[command(after_help = examples::JOIN)]
    Join(On<Processor, commands::join::Args>),
    /// Show the sizes that the mixed plan can reach and their expected errors, without quantizing
    #[command(after_help = examples::PLAN)]
    Plan(On<Processor, commands::plan::Args>),
    /// Collect routing and activation statistics on a text, for `quantize --calibration`
    #[command(after_help = examples::CALIBRATE)]
    Calibrate(On<Processor, commands::calibrate::Args>),
    /// Calibrate and quantize on a cluster: Slurm scripts, Kubernetes manifests
    #[command(after_help = examples::CLUSTER)]
    Cluster(commands::cluster::Args),
    /// Rearrange a GGUF file so that each expert is read with one read; weights stay as they are
    #[command(after_help = examples::CONVERT)]
    Convert(On<Processor, commands::convert::Args>),
    /// Export a model to stock GGUF, which llama.cpp and programs based on it read
    #[command(after_help = examples::EXPORT)]
    Export(On<Processor, commands::export::Args>),
    /// Show architecture, sizes, tensors and block types of a model
    #[command(alias = "show", alias = "info", after_help = examples::INSPECT)]
    Inspect(commands::inspect::Args),
    /// Read a whole file and compare it with its checksums
    #[command(after_help = examples::VERIFY)]
    Verify(commands::verify::Args),
    /// Split a text into tokens with a model's tokenizer
    #[command(after_help = examples::TOKENIZE)]
    Tokenize(commands::tokenize::Args),
    /// Evaluate a model: logits, perplexity, KL divergence from a reference, graded tasks
    #[command(after_help = examples::EVAL)]
    Eval(Box<On<Compute, commands::eval::Args>>),
    /// Measure tokens per second, memory and energy, for prompt processing and generation
    #[command(after_help = examples::BENCH)]
    Bench(Box<On<Compute, commands::bench::Args>>),
    /// Examine this machine (cores, memory, storage, meters) and recommend how to run a model on it
    #[command(after_help = examples::DOCTOR)]
    Doctor(On<Outlook, commands::doctor::Args>),
    /// Copy the program and models to a board over ssh and run `doctor` there
    #[command(after_help = examples::DEPLOY)]
    Deploy(commands::deploy::Args),
    /// Compare eviction policies on a recorded routing trace
    #[command(after_help = examples::REPLAY)]
    Replay(commands::replay::Args),
    /// Quantize the reference model that ships with the project and ask it questions
    #[command(after_help = examples::DEMO)]
    Demo(On<Processor, commands::demo::Args>),
    /// Print a script that completes commands and options in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(commands::completions::Args),
    /// Write the manual pages of all commands to a folder
    #[command(after_help = examples::MAN)]
    Man(commands::man::Args),
}

/// The definition of the command line. Options take negative numbers, so that a negative value gets
/// an error about its range.
fn definition() -> clap::Command {
    fn negative_numbers(command: clap::Command) -> clap::Command {
        command
            .mut_args(|arg| match arg.get_action().takes_values() {
                true => arg.allow_negative_numbers(true),
                false => arg,
            })
            .mut_subcommands(negative_numbers)
    }
    negative_numbers(Cli::command())
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let parsed = match slips::foreign_flag(&words) {
        Some(message) => Err(failure::Failure::Usage(message)),
        None => definition()
            .try_get_matches_from(&words)
            .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches))
            .map_err(|error| slips::explain(error, &words)),
    };
    let done = parsed.and_then(|cli| match cli.command {
        Some(command) => run(command),
        None => Ok(writeln!(io::stdout(), "{}", examples::BEGIN)?),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> failure::Result {
    match command {
        Command::Run(on) => commands::run::run(&on.options, on.args),
        Command::Chat(on) => commands::chat::run(&on.options, on.args),
        Command::Serve(on) => commands::serve::run(&on.options, on.args),
        Command::Pull(args) => commands::pull::run(args),
        Command::Models(args) => commands::models::run(args),
        Command::Quantize(on) => commands::quantize::run(&on.options.into(), on.args),
        Command::Join(on) => commands::join::run(&on.options.into(), on.args),
        Command::Plan(on) => commands::plan::run(&on.options.into(), on.args),
        Command::Calibrate(on) => commands::calibrate::run(&on.options.into(), on.args),
        Command::Cluster(args) => commands::cluster::run(args),
        Command::Convert(on) => commands::convert::run(&on.options.into(), on.args),
        Command::Export(on) => commands::export::run(&on.options.into(), on.args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Eval(on) => commands::eval::run(&on.options, on.args),
        Command::Bench(on) => commands::bench::run(&on.options, on.args),
        Command::Doctor(on) => commands::doctor::run(&on.options.into(), on.args),
        Command::Deploy(args) => commands::deploy::run(args),
        Command::Replay(args) => commands::replay::run(args),
        Command::Demo(on) => commands::demo::run(&on.options.into(), on.args),
        Command::Completions(args) => commands::completions::run(definition(), args),
        Command::Man(args) => commands::man::run(definition(), args),
    }
}
