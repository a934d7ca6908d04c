//! `vaquita serve`: answers requests over HTTP until SIGTERM or Ctrl-C.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use vaquita_hub::Purpose;
use vaquita_runtime::checkpoint::suggested::SuggestedSampling;
use vaquita_runtime::engine::{EngineOptions, PromptCacheOptions};
use vaquita_runtime::host::Host;
use vaquita_runtime::measure::meter::Meters;
use vaquita_server::{
    Address, Defaults, Keys, Limits, ModelInfo, Part, RunError, Served, Server, ServerOptions,
};

use crate::bundle::Bundle;
use crate::cache_folder::CacheFolder;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::hub::Fetch;
use crate::model_argument::ModelArgument;
use crate::template::Template;
use crate::{size, slips};

/// Arguments of `serve`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    #[command(flatten)]
    fetch: Fetch,
    /// Address to listen on: HOST:PORT, or unix:PATH; repeatable. Sockets passed by systemd replace
    /// it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Vec<Address>,
    /// Name of the model for clients [default: the file's name]; repeat it for further names
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Tag of the model, for clients that sort models by them; repeatable
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Number of answers that are generated at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    slots: u16,
    /// Number of requests that may wait; others are told to come back (503)
    #[arg(long, value_name = "N", default_value_t = 16)]
    queue: u16,
    /// File with the keys of clients, one in a line as KEY or NAME:KEY; only its owner may read it
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Key of clients, where there is no file of keys
    #[arg(long, value_name = "KEY", env = "VAQUITA_API_KEY", hide = true, hide_env_values = true)]
    api_key: Option<String>,
    /// Listen on addresses that other machines reach, without a key
    #[arg(long)]
    insecure_no_key: bool,
    /// Further name under which clients address this machine; repeatable
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Origin of pages that may use the server, such as `https://chat.example`, `localhost` for all
    /// of this machine, or `*` for all; repeatable
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Seconds that running answers get when the server ends
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u32,
    /// With --memory: keep memory for one more sequence, which scores prompts (`echo` with
    /// `logprobs`)
    #[arg(long)]
    score: bool,
    /// Part of the server to leave out: page, slots, or metrics; repeatable
    #[arg(long, value_name = "PART")]
    without: Vec<Part>,
    /// Tell clients the prompt that their conversation became (`__verbose`), also where they do not
    /// ask for it
    #[arg(long)]
    verbose_answers: bool,
    /// Write prompts and answers to the file prompts.jsonl in this folder, which only its owner may
    /// read; without it, no texts are logged
    #[arg(long, value_name = "FOLDER")]
    log_prompts: Option<PathBuf>,
    /// Folder for the files of slots (`POST /slots/ID?action=save`), which only its owner may access;
    /// without it, slots are not saved
    #[arg(long, value_name = "FOLDER")]
    slot_save_path: Option<PathBuf>,
    /// Open the page in the browser
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    requests: RequestArgs,
    #[command(flatten)]
    prompts: PromptArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Values for requests that do not have them.
#[derive(ClapArgs)]
#[command(next_help_heading = "Defaults of requests")]
struct RequestArgs {
    /// Sampling temperature [default: the model's]
    #[arg(long, value_name = "T", value_parser = temperature)]
    temperature: Option<f32>,
    /// Seed [default: a random one for each request]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Maximum number of tokens of an answer [default: what fits]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    template: Template,
}

fn temperature(text: &str) -> std::result::Result<f32, String> {
    let temperature = text.parse::<f32>().ok().filter(|t| (0.0..=100.0).contains(t));
    temperature.ok_or_else(|| "0 to 100".into())
}

/// Arguments of the prompt cache.
#[derive(ClapArgs)]
#[command(next_help_heading = "Prompt cache")]
struct PromptArgs {
    /// Memory for conversations that have ended or wait for their next turn, or none
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size::parse_or_none)]
    cache_memory: u64,
    #[command(flatten)]
    folder: CacheFolder,
}

impl From<PromptArgs> for PromptCacheOptions {
    fn from(PromptArgs { cache_memory: memory, folder }: PromptArgs) -> Self {
        Self { memory, ..folder.into() }
    }
}

/// Limits on connections and requests.
#[derive(ClapArgs)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Connections at the same time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
    /// Connections at the same time from one other machine
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections_per_peer: u16,
    /// Size of a request's body in bytes
    #[arg(long, value_name = "N", default_value_t = 4 << 20)]
    max_body: u32,
    /// Seconds until a request's head has to be complete
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    head_timeout: f64,
    /// Seconds until a request's body has to be complete
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    body_timeout: f64,
    /// Seconds until a connection without requests is closed
    #[arg(long, value_name = "SECONDS", default_value_t = 75.0, value_parser = seconds)]
    idle_timeout: f64,
    /// Seconds until a client that reads nothing is dropped
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    stall_timeout: f64,
    /// Seconds until a request that waits in the queue is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    queue_timeout: f64,
    /// Seconds between two signs of life to a client that waits
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    keep_alive: f64,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "0.1 to 86400 seconds".into())
}

impl From<LimitArgs> for Limits {
    fn from(args: LimitArgs) -> Self {
        let of = Duration::from_secs_f64;
        Self {
            connections: args.max_connections.into(),
            connections_per_peer: args.max_connections_per_peer.into(),
            body_bytes: args.max_body as usize,
            head_time: of(args.head_timeout),
            body_time: of(args.body_timeout),
            idle_time: of(args.idle_timeout),
            stall_time: of(args.stall_timeout),
            queue_time: of(args.queue_timeout),
            keep_alive: of(args.keep_alive),
            ..Self::default()
        }
    }
}

/// Reads keys from a file that only its owner can read.
fn keys(file: Option<&Path>, key: Option<&str>) -> Result<Keys> {
    let Some(path) = file else {
        let parsed = key.map_or(Ok(Keys::default()), Keys::parse);
        return parsed.map_err(|error| Failure::Usage(format!("VAQUITA_API_KEY: {error}")));
    };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Error(format!("--api-key-file: {}: {error}", path.display()))
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_err(|error| failed(&error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let message = format!("others can read it; run: chmod 600 {}", path.display());
            return Err(failed(&message));
        }
    }
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    Keys::parse(&text).map_err(|error| failed(&error))
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    // Fetched before anything is served, if at all: the server itself makes no connections.
    let path = args.fetch.local(&args.model.path()?, Purpose::Run)?;
    slips::check_model(&path)?;
    let options = ServerOptions {
        keys: keys(args.api_key_file.as_deref(), args.api_key.as_deref())?,
        insecure_no_key: args.insecure_no_key,
        allowed_hosts: args.allowed_host,
        cors_origins: args.cors_origin,
        without: args.without,
        verbose: args.verbose_answers,
        log_prompts: args.log_prompts,
        slot_save_path: args.slot_save_path.clone(),
        limits: args.limits.into(),
        grace: Duration::from_secs(args.grace.into()),
    };
    let has_keys = !options.keys.is_empty();
    let server =
        Server::listen(&args.listen, options).map_err(|error| Failure::Usage(error.to_string()))?;
    let urls = server.urls();
    let (slots, queue) = (args.slots.into(), args.queue.into());
    // Without keys, all requests seem to come from one client.
    let client_share = (!has_keys).then_some(queue);
    let prompts = args.prompts.into();
    let slot_folder = args.slot_save_path;
    let engine = EngineOptions {
        slots,
        queue,
        client_share,
        prompts,
        slot_folder,
        ..EngineOptions::default()
    };
    let (compute, names, score) = (compute.clone(), (args.alias, args.tag), args.score);
    let requests = args.requests;
    let load = move || -> Result<Served> {
        let sequences = slots + usize::from(score);
        let bundle = Bundle::open_for_sequences(&compute, &path, sequences)?;
        let info = info(&path, names, requests, &bundle)?;
        let served = Served::new(bundle.into_app(), engine, info)?;
        for url in &urls {
            eprintln!("{} is served at {url}", path.display());
        }
        if args.open {
            open(&urls);
        }
        if !has_keys {
            eprintln!("no key is needed; see --api-key-file");
        }
        Ok(served)
    };
    server.run(load).map_err(|error| match error {
        RunError::Serve(error) => Failure::Error(error.to_string()),
        RunError::Load(failure) => failure,
    })
}

/// Opens the page in the browser, by the system's command for that.
fn open(urls: &[String]) {
    let command = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let Some(url) = urls.iter().find(|url| url.starts_with("http")) else { return };
    // All addresses of this machine: the browser needs one of them.
    let url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
    if let Err(error) = Command::new(command).arg(&url).stdout(Stdio::null()).spawn() {
        eprintln!("note: --open: {command}: {error}; open {url} yourself");
    }
}

/// Description of the model for clients.
fn info(
    path: &Path,
    (mut names, tags): (Vec<String>, Vec<String>),
    requests: RequestArgs,
    bundle: &Bundle,
) -> Result<ModelInfo> {
    let stem = match path.is_dir() {
        true => path.file_name(),
        false => path.file_stem(),
    };
    let stem = stem.map_or("model".into(), |stem| stem.to_string_lossy().into_owned());
    let id = if names.is_empty() { stem } else { names.remove(0) };
    let fingerprint = bundle.app().identity().and_then(|identity| identity.fingerprint().ok());
    let meter = Meters::find(&Arc::new(Host::live())).into_best().ok();
    let meter = meter.map(|meter| meter.name().to_string());
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let suggested = *bundle.suggested();
    let temperature = requests.temperature.or(suggested.temperature);
    let defaults = Defaults {
        seed: requests.seed,
        max_tokens: requests.max_tokens,
        variables: requests.template.variables(bundle.prompter())?,
    };
    Ok(ModelInfo {
        id,
        aliases: names,
        tags,
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        fingerprint,
        sampling: SuggestedSampling { temperature, ..suggested },
        defaults,
        bytes,
        meter,
    })
}
