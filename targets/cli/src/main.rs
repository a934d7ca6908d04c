//! The program `vaquita`: quantizes, runs, inspects and measures models.

mod answer;
mod bundle;
mod commands;
mod compute;
mod energy;
mod failure;
mod files;
mod hints;
mod hub;
mod penalties;
mod published;
mod size;
mod stop;
mod streamed;
mod structure;
mod template;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use compute::Compute;

/// Quantize and run DeepSeek-class mixture-of-experts models on small machines
#[derive(Parser)]
#[command(name = "vaquita", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    compute: Compute,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch a model of the Hugging Face hub into its cache
    Pull(commands::pull::Args),
    /// List and remove the models in the hub's cache
    Models(commands::models::Args),
    /// Quantize a checkpoint (a Hugging Face folder or a GGUF file)
    Quantize(commands::quantize::Args),
    /// Join the parts that `quantize --part` made into one file
    Join(commands::join::Args),
    /// Show the sizes that the mixed plan can reach and their expected errors, without quantizing
    Plan(commands::plan::Args),
    /// Collect routing and activation statistics on a text, for `quantize --calibration`
    Calibrate(commands::calibrate::Args),
    /// Calibrate and quantize on a cluster: Slurm scripts, Kubernetes manifests
    Cluster(commands::cluster::Args),
    /// Rearrange a GGUF file so that each expert is read with one read; weights stay as they are
    Convert(commands::convert::Args),
    /// Export a model to stock GGUF, which llama.cpp and programs based on it read
    Export(commands::export::Args),
    /// Answer one prompt
    Run(commands::run::Args),
    /// Chat with a model
    Chat(commands::chat::Args),
    /// Show architecture, sizes, tensors and block types of a model
    Inspect(commands::inspect::Args),
    /// Split a text into tokens with a model's tokenizer
    Tokenize(commands::tokenize::Args),
    /// Evaluate a model: logits, perplexity, KL divergence from a reference, graded tasks
    Eval(commands::eval::Args),
    /// Measure tokens per second, memory and energy, for prompt processing and generation
    Bench(commands::bench::Args),
    /// Examine this machine (cores, memory, storage, meters) and recommend how to run a model on it
    Doctor(commands::doctor::Args),
    /// Copy the program and models to a board over ssh and run `doctor` there
    Deploy(commands::deploy::Args),
    /// Compare eviction policies on a recorded routing trace
    Replay(commands::replay::Args),
    /// Quantize the reference model that ships with the project and ask it questions
    Demo(commands::demo::Args),
}

fn main() -> ExitCode {
    let Cli { compute, command } = Cli::parse();
    let done = match command {
        Command::Pull(args) => commands::pull::run(args),
        Command::Models(args) => commands::models::run(args),
        Command::Quantize(args) => commands::quantize::run(&compute, args),
        Command::Join(args) => commands::join::run(&compute, args),
        Command::Plan(args) => commands::plan::run(&compute, args),
        Command::Calibrate(args) => commands::calibrate::run(&compute, args),
        Command::Cluster(args) => commands::cluster::run(args),
        Command::Convert(args) => commands::convert::run(&compute, args),
        Command::Export(args) => commands::export::run(&compute, args),
        Command::Run(args) => commands::run::run(&compute, args),
        Command::Chat(args) => commands::chat::run(&compute, args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Eval(args) => commands::eval::run(&compute, args),
        Command::Bench(args) => commands::bench::run(&compute, args),
        Command::Doctor(args) => commands::doctor::run(&compute, args),
        Command::Deploy(args) => commands::deploy::run(args),
        Command::Replay(args) => commands::replay::run(args),
        Command::Demo(args) => commands::demo::run(&compute, args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
