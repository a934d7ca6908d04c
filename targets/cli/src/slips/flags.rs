//! Options of llama.cpp's programs and of Ollama that mean nothing here, or go by another name.

use std::ffi::OsString;

/// Commands whose options people know from elsewhere.
const COMMANDS: [&str; 4] = ["run", "chat", "bench", "serve"];

/// Options whose value is text, which may look like an option.
const TEXTS: [&str; 5] = ["-p", "--prompt", "--system", "--stop", "--reverse-prompt"];

const NO_GPU: &str = "vaquita computes on the processor alone: leave it out";
const STREAMING: &str =
    "--memory SIZE says how much may be in memory; other experts are read from the file";
const NOT_NEEDED: &str = "it is not needed here: leave it out";
const CHAT: &str = "`vaquita chat MODEL` holds conversations";
const DOWNLOAD: &str =
    "a model of the hub is named without an option: hf:OWNER/NAME or hf:OWNER/NAME:Q4_K_M";
const CACHE: &str = "--cache q8 (or f16, f32) sets the type of keys and values alike";
const SAMPLING: &str = "it is not offered; docs/sampling.md lists what is";
const SYSTEM: &str = "--system TEXT sets the system prompt";
const POSITIONS: &str = "the file says how its positions extend; --context sets the length";

/// Options, and what to do instead.
const FOREIGN: [(&[&str], &str); 25] = [
    (&["-ngl", "--n-gpu-layers", "--gpu-layers", "-mg", "--main-gpu", "-dev", "--device"], NO_GPU),
    (&["-sm", "--split-mode", "-ts", "--tensor-split", "-nkvo", "--no-kv-offload"], NO_GPU),
    (&["-ot", "--override-tensor", "-cmoe", "--cpu-moe", "-ncmoe", "--n-cpu-moe"], STREAMING),
    (&["--mlock", "--mmap", "-mmp", "--no-mmap"], STREAMING),
    (&["-fa", "--flash-attn", "--jinja", "--color", "-co", "--no-warmup"], NOT_NEEDED),
    (&["--simple-io", "--no-display-prompt", "--nowordwrap", "--log-disable"], NOT_NEEDED),
    (&["-b", "--batch-size", "-ub", "--ubatch-size", "--keepalive", "--numa"], NOT_NEEDED),
    (&["-e", "--escape", "--no-escape", "-if", "--in-prefix", "--multiline-input"], NOT_NEEDED),
    (&["-ctk", "--cache-type-k", "-ctv", "--cache-type-v"], CACHE),
    (&["-cnv", "--conversation", "-i", "--interactive", "-ins", "--instruct"], CHAT),
    (
        &["-no-cnv", "--no-conversation"],
        "`vaquita run` answers one prompt; --raw leaves out the chat template",
    ),
    (&["-sys", "--system-prompt", "-sysf"], SYSTEM),
    (&["-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-mu", "--model-url"], DOWNLOAD),
    (&["-tb", "--threads-batch"], "--threads sets the threads of prompts and answers alike"),
    (
        &["-C", "--cpu-range", "-Cr", "--prio", "--poll"],
        "--cpu-mask CORES names the cores to run on",
    ),
    (&["-v", "--verbose", "--log-verbose", "--show-timings"], "--stats prints what an answer cost"),
    (&["--format"], "--json-object or --json-schema FILE hold the answer to JSON"),
    (&["--grammar-file"], "--grammar FILE takes a file"),
    (&["-j", "--json-schema-file", "-jf"], "--json-schema takes a schema or its file"),
    (&["--mirostat", "--typical", "--typical-p", "--top-nsigma", "--dynatemp-range"], SAMPLING),
    (&["--samplers", "--sampling-seq"], "the order of the steps is fixed; docs/sampling.md has it"),
    (&["--rope-scaling", "--rope-freq-base", "--rope-scale", "--yarn-orig-ctx"], POSITIONS),
    (
        &["--lora", "--lora-scaled", "--control-vector"],
        "adapters are not read: merge them into the checkpoint first",
    ),
    (
        &["--chat-template", "--chat-template-file"],
        "the model's own template is used; --raw leaves it out",
    ),
    (&["--ignore-eos"], "--logit-bias ID=-inf bans the token that ends answers"),
];

/// Hint for the first option that is another program's.
pub fn foreign_flag(words: &[OsString]) -> Option<String> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    if !words.get(1).is_some_and(|command| COMMANDS.contains(&&**command)) {
        return None;
    }
    let mut after_text = false;
    for word in words.iter().skip(2).take_while(|word| *word != "--") {
        let is_text = std::mem::replace(&mut after_text, TEXTS.contains(&&**word));
        let name = word.split('=').next().unwrap_or_default();
        let found = FOREIGN.iter().find(|(names, _)| names.contains(&name));
        if let Some((_, advice)) = found.filter(|_| !is_text) {
            return Some(format!("{name}: {advice}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        foreign_flag(&words)
    }

    #[test]
    fn foreign_options_are_found_where_they_are_options() {
        assert!(found("vaquita run m.gguf -ngl 99").unwrap().contains("processor"));
        assert!(found("vaquita run m.gguf --format=json").unwrap().contains("--json-object"));
        assert_eq!(found("vaquita run m.gguf -p -ngl"), None);
        assert_eq!(found("vaquita run m.gguf -- -ngl"), None);
        assert_eq!(found("vaquita tokenize m.gguf -ngl"), None);
    }
}
