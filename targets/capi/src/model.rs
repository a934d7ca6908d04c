//! Models: opening, closing, memory, thermal hints.

use std::ffi::c_char;
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::sync::Arc;

use vaquita_runtime::app::{self, AppModel, Thermal};
use vaquita_runtime::engine::PromptCacheOptions;
use vaquita_runtime::opening::TrimLevel;

use crate::arguments::{Versioned, give, given, optional_text, reference, text};
use crate::status::{Failure, Result, VAQUITA_ERROR_BUSY, guard};

/// Release experts beyond one token's, because the app is in the background.
pub const VAQUITA_TRIM_BACKGROUND: i32 = 0;
/// Release all that is not needed to compute, because the system is about to kill processes.
pub const VAQUITA_TRIM_CRITICAL: i32 = 1;

/// Compute on all threads.
pub const VAQUITA_THERMAL_NOMINAL: i32 = 0;
/// Compute on three quarters of the threads, rounded up.
pub const VAQUITA_THERMAL_FAIR: i32 = 1;
/// Compute on half of the threads, rounded up.
pub const VAQUITA_THERMAL_SERIOUS: i32 = 2;
/// Compute on one thread.
pub const VAQUITA_THERMAL_CRITICAL: i32 = 3;

/// A model.
pub struct Model {
    pub(crate) inner: Arc<AppModel>,
}

/// Options for opening a model. vaquita_model_options_init() sets the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ModelOptions {
    /// sizeof(vaquita_model_options).
    pub struct_size: usize,
    /// Memory budget of the whole process: "2GiB", "800M", "60%" or "auto". Experts that do not fit
    /// are read from the file on demand. Null: no limit; the file is mapped.
    pub memory: *const c_char,
    /// Context size of a conversation in tokens; 0: the model's.
    pub context: usize,
    /// Number of concurrent sessions that the memory budget includes; no limit without a budget.
    pub sessions: usize,
    /// Number of threads; 0: one per core of the fastest cluster, bound to it.
    pub threads: usize,
    /// Element type of the KV caches: "f16", or "q8", which takes about half the memory at a small
    /// loss of precision. Null: "f16".
    pub cache: *const c_char,
    /// How tokens are drafted and then checked together, which changes no answer: "auto" or "mtp:2"
    /// by the file's multi-token-prediction layer, "lookup:4" by text that occurred before; with at
    /// most so many drafts per step. Null: "off".
    pub drafts: *const c_char,
    /// Folder that keeps prompts and answers, so that a conversation that begins like an earlier one
    /// starts at once, also after the app was restarted. It is created for its owner only. Null: they
    /// are not kept.
    pub prompt_folder: *const c_char,
    /// Maximum size of that folder in bytes; 0: 2 GiB.
    pub prompt_bytes: u64,
}

// SAFETY: it begins with its size; the rest is numbers and pointers.
unsafe impl Versioned for ModelOptions {
    const NAME: &str = "vaquita_model_options";
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            memory: null(),
            context: 0,
            sessions: 1,
            threads: 0,
            cache: null(),
            drafts: null(),
            prompt_folder: null(),
            prompt_bytes: 0,
        }
    }
}

/// Memory use in bytes; -1 for values that were not measured or that need a budget. Set struct_size
/// before the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memory {
    /// sizeof(vaquita_memory).
    pub struct_size: usize,
    /// Resident memory of the process.
    pub process: i64,
    /// Peak resident memory of the process.
    pub process_peak: i64,
    /// Memory budget.
    pub budget: i64,
    /// Planned for dense weights: all but the routed experts.
    pub dense: i64,
    /// Planned for the KV caches of all sessions.
    pub cache: i64,
    /// Planned for the scratch memory of a prompt's chunk.
    pub scratch: i64,
    /// Limit on streamed experts; -1 if the file is mapped.
    pub experts_limit: i64,
    /// Current memory of streamed experts.
    pub experts: i64,
}

// SAFETY: it begins with its size; the rest is numbers.
unsafe impl Versioned for Memory {
    const NAME: &str = "vaquita_memory";
}

fn bytes(measured: Option<u64>) -> i64 {
    measured.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1)
}

/// Sets the defaults. `struct_size` is sizeof(vaquita_model_options).
///
/// # Safety
/// `options` is null or points to `struct_size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_options_init(
    options: *mut ModelOptions,
    struct_size: usize,
) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe { init(options, struct_size) })
}

/// Writes a struct's size and defaults.
///
/// # Safety
/// `into` is null or points to `struct_size` writable bytes.
pub(crate) unsafe fn init<T: Versioned + Default>(into: *mut T, struct_size: usize) -> Result {
    if !into.is_null() && struct_size >= size_of::<usize>() {
        // SAFETY: there is room for a size; the caller's struct may be unaligned.
        unsafe { into.cast::<usize>().write_unaligned(struct_size) };
    } else if !into.is_null() {
        return Err(Failure::argument(format!("struct_size of {} is {struct_size}", T::NAME)));
    }
    // SAFETY: promised by the caller.
    unsafe { give(into, &T::default()) }
}

/// Opens a GGUF file. `options` may be null. Close the model with vaquita_model_close().
///
/// # Safety
/// `path` is a string or null, `options` null or a struct, `model` null or a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_open(
    path: *const c_char,
    options: *const ModelOptions,
    model: *mut *mut Model,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (path, given, out) = unsafe {
            (text(path, "path")?, given(options, ModelOptions::default())?, model.as_mut())
        };
        let out = out.ok_or_else(|| Failure::argument("model is null"))?;
        // SAFETY: they are strings or null.
        let (memory, cache, drafts, folder) = unsafe {
            (
                optional_text(given.memory, "memory")?,
                optional_text(given.cache, "cache")?,
                optional_text(given.drafts, "drafts")?,
                optional_text(given.prompt_folder, "prompt_folder")?,
            )
        };
        let options = app::ModelOptions {
            context: given.context,
            sessions: given.sessions,
            threads: given.threads,
            ..app::ModelOptions::read(memory, cache, drafts)?
        };
        let inner = AppModel::open(Path::new(path), &options)?;
        let folder = folder.map(PathBuf::from);
        inner.keep_prompts(&PromptCacheOptions::in_folder(folder, given.prompt_bytes))?;
        *out = Box::into_raw(Box::new(Model { inner }));
        Ok(())
    })
}

/// Closes a model. Passing null is a no-op. Returns VAQUITA_ERROR_BUSY, and leaves the model open,
/// if it has open sessions.
///
/// # Safety
/// `model` is null or an open model, which no other call uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_close(model: *mut Model) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let Some(open) = (unsafe { model.as_ref() }) else { return Ok(()) };
        match open.inner.live() {
            0 => {
                // SAFETY: created by `Box::into_raw`, and no longer used.
                drop(unsafe { Box::from_raw(model) });
                Ok(())
            }
            live => {
                let message = format!("the model has {live} open sessions; close them first");
                Err(Failure::new(VAQUITA_ERROR_BUSY, message))
            }
        }
    })
}

/// Changes the memory budget of the whole process. Takes effect by the next layer, also while a
/// session generates. No effect on a mapped model, which holds no memory that it could release.
///
/// # Safety
/// `model` is null or an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_set_memory_budget(model: *const Model, bytes: u64) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| Ok(unsafe { reference(model, "model") }?.inner.set_memory_budget(bytes)?))
}

/// Releases memory until the next vaquita_model_set_memory_budget(). `level` is VAQUITA_TRIM_*.
///
/// # Safety
/// `model` is null or an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_trim(model: *const Model, level: i32) -> i32 {
    guard(|| {
        let level = match level {
            VAQUITA_TRIM_BACKGROUND => TrimLevel::Background,
            VAQUITA_TRIM_CRITICAL => TrimLevel::Critical,
            _ => return Err(Failure::argument(format!("level is {level}; see VAQUITA_TRIM_*"))),
        };
        // SAFETY: promised by the caller.
        unsafe { reference(model, "model") }?.inner.trim(level);
        Ok(())
    })
}

/// Reports the thermal state of the device, VAQUITA_THERMAL_*: fewer threads compute from the next
/// matrix product on. Answers do not change. If `threads` is not null, it receives the number of
/// threads.
///
/// # Safety
/// `model` is null or an open model, `threads` null or a writable number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_thermal_hint(
    model: *const Model,
    thermal: i32,
    threads: *mut usize,
) -> i32 {
    guard(|| {
        let level = match thermal {
            VAQUITA_THERMAL_NOMINAL => Thermal::Nominal,
            VAQUITA_THERMAL_FAIR => Thermal::Fair,
            VAQUITA_THERMAL_SERIOUS => Thermal::Serious,
            VAQUITA_THERMAL_CRITICAL => Thermal::Critical,
            _ => {
                let message = format!("thermal is {thermal}; see VAQUITA_THERMAL_*");
                return Err(Failure::argument(message));
            }
        };
        // SAFETY: promised by the caller.
        let (model, out) = unsafe { (reference(model, "model")?, threads.as_mut()) };
        let active = model.inner.thermal_hint(level);
        if let Some(out) = out {
            *out = active;
        }
        Ok(())
    })
}

/// Reports memory use.
///
/// # Safety
/// `model` is null or an open model, `memory` null or a struct that begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_memory(model: *const Model, memory: *mut Memory) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let found = unsafe { reference(model, "model") }?.inner.memory();
        let value = Memory {
            struct_size: size_of::<Memory>(),
            process: bytes(found.process.map(|process| process.resident)),
            process_peak: bytes(found.process.map(|process| process.peak)),
            budget: bytes(found.budget),
            dense: bytes(found.dense),
            cache: bytes(found.cache),
            scratch: bytes(found.scratch),
            experts_limit: bytes(found.experts_limit),
            experts: bytes(found.experts),
        };
        // SAFETY: promised by the caller.
        unsafe { give(memory, &value) }
    })
}
