//! What strangers' bytes reach, one function per kind of input. Each reads bytes as its part of the
//! project does, and uses what it has read. None may panic, whatever the bytes. `fuzz/` calls these
//! with libFuzzer, and the example `mutate` with mutations of seeds.

mod files;
mod parsers;
mod seeds;

pub use seeds::seeds;

/// A kind of input.
pub struct Target {
    /// Name.
    pub name: &'static str,
    /// Reads and uses bytes.
    pub run: fn(&[u8]),
    /// Bytes of memory that an input may take besides a multiple of its own size.
    pub fixed: usize,
}

const MIB: usize = 1 << 20;

/// All kinds of input.
pub const TARGETS: [Target; 14] = [
    Target { name: "gguf", run: parsers::gguf, fixed: 8 * MIB },
    Target { name: "config", run: parsers::config, fixed: 8 * MIB },
    Target { name: "tokenizer", run: parsers::tokenizer, fixed: 32 * MIB },
    Target { name: "tokenizer_keys", run: parsers::tokenizer_keys, fixed: 32 * MIB },
    Target { name: "template", run: parsers::template, fixed: 256 * MIB },
    Target { name: "trace", run: parsers::trace, fixed: 8 * MIB },
    Target { name: "tools", run: parsers::tools, fixed: 8 * MIB },
    Target { name: "reasoning", run: parsers::reasoning, fixed: 8 * MIB },
    Target { name: "safetensors", run: files::safetensors, fixed: 8 * MIB },
    Target { name: "tiktoken", run: files::tiktoken, fixed: 32 * MIB },
    Target { name: "sentencepiece", run: files::sentencepiece, fixed: 32 * MIB },
    Target { name: "session", run: files::session, fixed: 8 * MIB },
    Target { name: "calibration", run: files::calibration, fixed: 8 * MIB },
    Target { name: "reference", run: files::reference, fixed: 8 * MIB },
];

/// The kind of input of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
