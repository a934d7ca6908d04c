//! Examples at the end of each command's help, and what the program says where it is given nothing.

/// Where no command is given.
pub const BEGIN: &str = "\
vaquita quantizes and runs DeepSeek-class mixture-of-experts models on small machines.

To begin:
  vaquita demo                          quantize a small model that ships with vaquita, and ask it
  vaquita run model.gguf \"Hello\"        answer one prompt with a file that you have
  vaquita chat model.gguf               hold a conversation
  vaquita serve model.gguf --open       hold it in the browser, and serve programs
  vaquita pull OWNER/NAME               fetch a model of the Hugging Face hub
  vaquita quantize FOLDER -o out.gguf   make a small file of a checkpoint
  vaquita doctor model.gguf             examine this machine, and how a model would run on it

`vaquita help` lists all commands, `vaquita help run` the options of one.";

/// The program's own.
pub const ALL: &str = "\
Examples:
  vaquita demo
  vaquita run model.gguf \"Why is the sky blue?\"

`vaquita help COMMAND` shows a command's options and examples.";

pub const RUN: &str = "\
Examples:
  vaquita run model.gguf \"Why is the sky blue?\"
  vaquita run model.gguf --memory 3GiB -c 4096 -n 256 --seed 7 -f question.txt";

pub const CHAT: &str = "\
Examples:
  vaquita chat model.gguf
  vaquita chat model.gguf --system \"Answer in one sentence.\" --temp 0";

pub const SERVE: &str = "\
Examples:
  vaquita serve model.gguf --memory 3GiB -c 4096 --open
  vaquita serve model.gguf --listen 0.0.0.0:8080 --api-key-file keys";

pub const PULL: &str = "\
Examples:
  vaquita pull deepseek-ai/DeepSeek-V2-Lite
  vaquita pull owner/Model-GGUF:Q4_K_M";

pub const MODELS: &str = "\
Examples:
  vaquita models
  vaquita models remove owner/Model-GGUF";

pub const QUANTIZE: &str = "\
Examples:
  vaquita quantize DeepSeek-V2-Lite -o v2-lite.gguf
  vaquita quantize DeepSeek-V2-Lite -o v2-lite.gguf --plan mixed --target-bpw 2.6";

pub const JOIN: &str = "\
Examples:
  vaquita join part-1.gguf part-2.gguf -o model.gguf
  vaquita join parts/*.gguf -o model.gguf --json";

pub const PLAN: &str = "\
Examples:
  vaquita plan DeepSeek-V2-Lite
  vaquita plan DeepSeek-V2-Lite --target-bpw 2.6 --map bits.svg";

pub const CALIBRATE: &str = "\
Examples:
  vaquita calibrate DeepSeek-V2-Lite -o v2-lite.calibration
  vaquita calibrate DeepSeek-V2-Lite --text my.jsonl --limit 500 -o v2-lite.calibration";

pub const CLUSTER: &str = "\
Examples:
  vaquita cluster slurm help
  vaquita cluster kubernetes help";

pub const CONVERT: &str = "\
Examples:
  vaquita convert published.gguf -o model.gguf
  vaquita convert published-00001-of-00004.gguf -o model.gguf --type e3";

pub const EXPORT: &str = "\
Examples:
  vaquita export model.gguf -o for-llama.gguf
  vaquita export DeepSeek-V2-Lite -o for-llama.gguf --type q8_0";

pub const INSPECT: &str = "\
Examples:
  vaquita inspect model.gguf
  vaquita inspect model.gguf --tensors";

pub const VERIFY: &str = "\
Examples:
  vaquita verify model.gguf
  vaquita verify model.gguf --json";

pub const TOKENIZE: &str = "\
Examples:
  vaquita tokenize model.gguf \"Hello, world\"
  vaquita tokenize model.gguf --json < text.txt";

pub const EVAL: &str = "\
Examples:
  vaquita eval perplexity model.gguf --text heldout.jsonl
  vaquita eval kld model.gguf --reference DeepSeek-V2-Lite --text heldout.jsonl
  vaquita eval protocol aime model.gguf --questions aime.jsonl --answers answers.jsonl";

pub const BENCH: &str = "\
Examples:
  vaquita bench model.gguf
  vaquita bench model.gguf -p 64,512 -n 128 --memory 3GiB --energy auto -o json";

pub const DOCTOR: &str = "\
Examples:
  vaquita doctor
  vaquita doctor model.gguf -c 8192";

pub const DEPLOY: &str = "\
Examples:
  vaquita deploy pi@raspberrypi.local model.gguf
  vaquita deploy --help";

pub const REPLAY: &str = "\
Examples:
  vaquita replay model.trace --budget 1GiB --budget 2GiB
  vaquita replay model.trace --policy lru --budget 1GiB --plot hits.svg";

pub const DEMO: &str = "\
Examples:
  vaquita demo
  vaquita demo -o files --questions 50";

pub const COMPLETIONS: &str = "\
Examples:
  vaquita completions bash > ~/.local/share/bash-completion/completions/vaquita
  vaquita completions fish > ~/.config/fish/completions/vaquita.fish";

pub const MAN: &str = "\
Examples:
  vaquita man ~/.local/share/man/man1
  vaquita man . && man ./vaquita-run.1";
