/*
 * libvaquita: language models in your app. The guide is docs/c-api.md.
 *
 * Made by cbindgen from targets/capi/src; do not edit.
 *
 * Functions return a status: VAQUITA_OK, or one of VAQUITA_ERROR_*, whose message is vaquita_last_error().
 *
 * Threads: a model may be used from any thread at any time. A session does one thing at a time: while one thread
 * is in a function with it, others get VAQUITA_ERROR_BUSY, except from vaquita_session_cancel(), which works from
 * any thread. Sessions of one model can generate at the same time. Nothing may use a handle after it was closed.
 *
 * Texts are UTF-8 and end with a zero byte. Structs begin with their size, so that they can grow.
 */


#ifndef VAQUITA_H
#define VAQUITA_H

#include <stddef.h>
#include <stdint.h>

/**
 * Version of this interface. It increases when programs must be recompiled; structs may grow
 * without that.
 */
#define VAQUITA_ABI_VERSION 1

/**
 * Part of the prompt was processed.
 */
#define VAQUITA_EVENT_PROMPT 0

/**
 * A token was selected; its text may follow now or with the next token.
 */
#define VAQUITA_EVENT_TOKEN 1

/**
 * A piece of the model's reasoning, which is enclosed by tags such as <think> and </think>.
 */
#define VAQUITA_EVENT_REASONING 2

/**
 * A piece of the answer.
 */
#define VAQUITA_EVENT_ANSWER 3

/**
 * All answer text so far was reasoning: it ended with a closing tag that had not been opened.
 */
#define VAQUITA_EVENT_WAS_REASONING 4

/**
 * A tool call began: the text is the name of the function, call_id the call's identifier.
 */
#define VAQUITA_EVENT_CALL_BEGIN 5

/**
 * A piece of a call's arguments, which are a JSON object together.
 */
#define VAQUITA_EVENT_CALL_ARGUMENTS 6

/**
 * A call is complete.
 */
#define VAQUITA_EVENT_CALL_END 7

/**
 * What looked like a call is none: the text says why. What the model wrote follows as answer. If
 * the call had begun, call_id says which one is void; otherwise it is empty.
 */
#define VAQUITA_EVENT_CALL_MALFORMED 8

/**
 * The meter returns the current power, in watts.
 */
#define VAQUITA_METER_WATTS 0

/**
 * The meter returns a monotonic counter, in joules.
 */
#define VAQUITA_METER_JOULES 1

/**
 * Release experts beyond one token's, because the app is in the background.
 */
#define VAQUITA_TRIM_BACKGROUND 0

/**
 * Release all that is not needed to compute, because the system is about to kill processes.
 */
#define VAQUITA_TRIM_CRITICAL 1

/**
 * Compute on all threads.
 */
#define VAQUITA_THERMAL_NOMINAL 0

/**
 * Compute on three quarters of the threads, rounded up.
 */
#define VAQUITA_THERMAL_FAIR 1

/**
 * Compute on half of the threads, rounded up.
 */
#define VAQUITA_THERMAL_SERIOUS 2

/**
 * Compute on one thread.
 */
#define VAQUITA_THERMAL_CRITICAL 3

/**
 * The model ended the answer.
 */
#define VAQUITA_STOP_END 0

/**
 * A stop string occurred.
 */
#define VAQUITA_STOP_TEXT 1

/**
 * max_tokens were generated.
 */
#define VAQUITA_STOP_LENGTH 2

/**
 * The context is full.
 */
#define VAQUITA_STOP_CONTEXT_FULL 3

/**
 * The answer was cancelled.
 */
#define VAQUITA_STOP_CANCELLED 4

/**
 * Success.
 */
#define VAQUITA_OK 0

/**
 * An argument is invalid: null, not UTF-8, or out of range.
 */
#define VAQUITA_ERROR_ARGUMENT 1

/**
 * The file does not exist.
 */
#define VAQUITA_ERROR_NOT_FOUND 2

/**
 * A file cannot be read or written.
 */
#define VAQUITA_ERROR_IO 3

/**
 * A file is invalid: not a model, damaged, or of an unsupported version.
 */
#define VAQUITA_ERROR_BAD_FILE 4

/**
 * The memory budget is too small.
 */
#define VAQUITA_ERROR_MEMORY 5

/**
 * The conversation is longer than the context.
 */
#define VAQUITA_ERROR_CONTEXT_FULL 6

/**
 * The conversation cannot be rendered with the model's chat template.
 */
#define VAQUITA_ERROR_TEMPLATE 7

/**
 * The model failed.
 */
#define VAQUITA_ERROR_MODEL 8

/**
 * The session is in use by another call, or the model has open sessions.
 */
#define VAQUITA_ERROR_BUSY 9

/**
 * Internal error of the library: close the session or model that it occurred in.
 */
#define VAQUITA_ERROR_INTERNAL 10

/**
 * A model.
 */
typedef struct vaquita_model vaquita_model;

/**
 * A conversation with a model.
 */
typedef struct vaquita_session vaquita_session;

/**
 * Generation options. vaquita_generate_options_init() sets the defaults.
 */
typedef struct vaquita_generate_options {
  /**
   * sizeof(vaquita_generate_options).
   */
  size_t struct_size;
  /**
   * Maximum number of tokens, including reasoning; 0: until the context is full.
   */
  size_t max_tokens;
  /**
   * Sampling temperature; 0 is greedy decoding. Default: 0.6.
   */
  float temperature;
  /**
   * Top-k sampling: keep the k most probable tokens; 0: all.
   */
  size_t top_k;
  /**
   * Top-p sampling: keep the most probable tokens up to this cumulative probability. Default:
   * 0.95.
   */
  float top_p;
  /**
   * Min-p sampling: keep tokens with at least this fraction of the highest probability.
   */
  float min_p;
  /**
   * Penalty on recent tokens; 1: none.
   */
  float repetition_penalty;
  /**
   * Random seed: the same seed gives the same answer.
   */
  uint64_t seed;
  /**
   * Strings that end the answer; null if stop_count is 0.
   */
  const char *const *stop;
  /**
   * Number of stop strings.
   */
  size_t stop_count;
  /**
   * Whether tool calls are parsed: they become VAQUITA_EVENT_CALL_* events instead of text, and
   * vaquita_session_add_tool_result() answers them. 0: they stay in the text of the answer.
   */
  int32_t parse_calls;
} vaquita_generate_options;

/**
 * An event during generation. It is valid until the callback returns.
 */
typedef struct vaquita_event {
  /**
   * VAQUITA_EVENT_*. Programs must ignore unknown kinds.
   */
  int32_t kind;
  /**
   * Token id.
   */
  uint32_t token;
  /**
   * Whole characters in UTF-8, terminated by a zero byte; empty if there is no text. The text
   * may contain zero bytes itself, so use text_length.
   */
  const char *text;
  /**
   * Length of the text in bytes.
   */
  size_t text_length;
  /**
   * Number of prompt tokens processed so far.
   */
  size_t prompt_done;
  /**
   * Number of prompt tokens.
   */
  size_t prompt_total;
  /**
   * Identifier of the call that the event belongs to; empty if it belongs to none.
   */
  const char *call_id;
} vaquita_event;

/**
 * Receives events on the thread that generates. Returns 0 to continue; any other value ends the
 * answer. It must not unwind.
 */
typedef int32_t (*vaquita_on_event)(const struct vaquita_event *event, void *user_data);

/**
 * Reads a meter. Returns NaN or a negative number if it cannot be read, in which case the energy
 * of the answer is unmeasured. It must not unwind.
 */
typedef double (*vaquita_read_meter)(void *user_data);

/**
 * Options for opening a model. vaquita_model_options_init() sets the defaults.
 */
typedef struct vaquita_model_options {
  /**
   * sizeof(vaquita_model_options).
   */
  size_t struct_size;
  /**
   * Memory budget of the whole process: "2GiB", "800M", "60%" or "auto". Experts that do not fit
   * are read from the file on demand. Null: no limit; the file is mapped.
   */
  const char *memory;
  /**
   * Context size of a conversation in tokens; 0: the model's.
   */
  size_t context;
  /**
   * Number of concurrent sessions that the memory budget includes; no limit without a budget.
   */
  size_t sessions;
  /**
   * Number of threads; 0: one per core of the fastest cluster, bound to it.
   */
  size_t threads;
  /**
   * Element type of the KV caches: "f16", or "q8", which takes about half the memory at a small
   * loss of precision. Null: "f16".
   */
  const char *cache;
  /**
   * How tokens are drafted and then checked together, which changes no answer: "auto" or "mtp:2"
   * by the file's multi-token-prediction layer, "lookup:4" by text that occurred before; with at
   * most so many drafts per step. Null: "off".
   */
  const char *drafts;
  /**
   * Folder that keeps prompts and answers, so that a conversation that begins like an earlier one
   * starts at once, also after the app was restarted. It is created for its owner only. Null: they
   * are not kept.
   */
  const char *prompt_folder;
  /**
   * Maximum size of that folder in bytes; 0: 2 GiB.
   */
  uint64_t prompt_bytes;
} vaquita_model_options;

/**
 * Memory use in bytes; -1 for values that were not measured or that need a budget. Set struct_size
 * before the call.
 */
typedef struct vaquita_memory {
  /**
   * sizeof(vaquita_memory).
   */
  size_t struct_size;
  /**
   * Resident memory of the process.
   */
  int64_t process;
  /**
   * Peak resident memory of the process.
   */
  int64_t process_peak;
  /**
   * Memory budget.
   */
  int64_t budget;
  /**
   * Planned for dense weights: all but the routed experts.
   */
  int64_t dense;
  /**
   * Planned for the KV caches of all sessions.
   */
  int64_t cache;
  /**
   * Planned for the scratch memory of a prompt's chunk.
   */
  int64_t scratch;
  /**
   * Limit on streamed experts; -1 if the file is mapped.
   */
  int64_t experts_limit;
  /**
   * Current memory of streamed experts.
   */
  int64_t experts;
} vaquita_memory;

/**
 * Cost of an answer. A floating-point value that was not measured is NaN: test it with isnan().
 * Set struct_size before the call.
 */
typedef struct vaquita_stats {
  /**
   * sizeof(vaquita_stats).
   */
  size_t struct_size;
  /**
   * Reason why the answer ended: VAQUITA_STOP_*.
   */
  int32_t stop;
  /**
   * Number of prompt tokens, that is, of the whole conversation.
   */
  size_t prompt_tokens;
  /**
   * Number of prompt tokens that were in the cache already.
   */
  size_t cached_tokens;
  /**
   * Number of generated tokens.
   */
  size_t tokens;
  /**
   * Seconds from the call to the first token.
   */
  double first_token_seconds;
  /**
   * Prompt tokens processed per second.
   */
  double prompt_tokens_per_second;
  /**
   * Generated tokens per second, after the first.
   */
  double tokens_per_second;
  /**
   * Joules until the first token, of everything that the meter covers.
   */
  double prompt_joules;
  /**
   * Joules per token after the first.
   */
  double joules_per_token;
  /**
   * Fraction of needed experts that were resident; NaN unless experts are streamed.
   */
  double hit_rate;
  /**
   * Bytes of experts read from the file by all sessions during the answer; -1 if the file is
   * mapped.
   */
  int64_t bytes_read;
  /**
   * Bytes of this session's KV cache.
   */
  size_t cache_bytes;
  /**
   * Number of drafted tokens; 0 without drafts.
   */
  uint64_t drafted_tokens;
  /**
   * Number of drafted tokens that the model confirmed.
   */
  uint64_t accepted_tokens;
} vaquita_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * `VAQUITA_ABI_VERSION` of the library. A program whose header has another version must not
 * continue.
 */
uint32_t vaquita_abi_version(void);

/**
 * Version of the library, such as "0.1.0".
 */
const char *vaquita_version(void);

/**
 * Sets the defaults. `struct_size` is sizeof(vaquita_generate_options).
 *
 * # Safety
 * `options` is null or points to `struct_size` writable bytes.
 */
int32_t vaquita_generate_options_init(struct vaquita_generate_options *options, size_t struct_size);

/**
 * Generates an answer to `user`, or to the conversation so far if `user` is null, and returns when
 * the answer has ended; VAQUITA_OK also if it was cancelled. `options` may be null.
 *
 * The answer is added to the conversation without its reasoning, even if it was cut short. If the
 * call fails, or is cancelled before any answer text, the conversation is unchanged.
 *
 * # Safety
 * `session` is null or an open session, `user` null or a string, `options` null or a struct;
 * `on_event` may be called with `user_data`.
 */
int32_t vaquita_session_generate(const struct vaquita_session *session,
                                 const char *user,
                                 const struct vaquita_generate_options *options,
                                 vaquita_on_event on_event,
                                 void *user_data);

/**
 * Measures the energy in vaquita_stats with the app's own meter, from the next answer on. `unit`
 * is VAQUITA_METER_*. `read` is called every tenth of a second for each generating session, on
 * threads of the library. `read` and `user_data` must stay valid until the model is closed or has
 * another meter, and all answers that began before have ended. Null selects the machine's own
 * meter, if there is one.
 *
 * # Safety
 * `model` is null or an open model; `read` and `user_data` as above.
 */
int32_t vaquita_model_set_meter(const struct vaquita_model *model,
                                int32_t unit,
                                vaquita_read_meter read,
                                void *user_data);

/**
 * Sets the defaults. `struct_size` is sizeof(vaquita_model_options).
 *
 * # Safety
 * `options` is null or points to `struct_size` writable bytes.
 */
int32_t vaquita_model_options_init(struct vaquita_model_options *options, size_t struct_size);

/**
 * Opens a GGUF file. `options` may be null. Close the model with vaquita_model_close().
 *
 * # Safety
 * `path` is a string or null, `options` null or a struct, `model` null or a writable pointer.
 */
int32_t vaquita_model_open(const char *path,
                           const struct vaquita_model_options *options,
                           struct vaquita_model **model);

/**
 * Closes a model. Passing null is a no-op. Returns VAQUITA_ERROR_BUSY, and leaves the model open,
 * if it has open sessions.
 *
 * # Safety
 * `model` is null or an open model, which no other call uses.
 */
int32_t vaquita_model_close(struct vaquita_model *model);

/**
 * Changes the memory budget of the whole process. Takes effect by the next layer, also while a
 * session generates. No effect on a mapped model, which holds no memory that it could release.
 *
 * # Safety
 * `model` is null or an open model.
 */
int32_t vaquita_model_set_memory_budget(const struct vaquita_model *model, uint64_t bytes);

/**
 * Releases memory until the next vaquita_model_set_memory_budget(). `level` is VAQUITA_TRIM_*.
 *
 * # Safety
 * `model` is null or an open model.
 */
int32_t vaquita_model_trim(const struct vaquita_model *model, int32_t level);

/**
 * Reports the thermal state of the device, VAQUITA_THERMAL_*: fewer threads compute from the next
 * matrix product on. Answers do not change. If `threads` is not null, it receives the number of
 * threads.
 *
 * # Safety
 * `model` is null or an open model, `threads` null or a writable number.
 */
int32_t vaquita_model_thermal_hint(const struct vaquita_model *model, int32_t thermal, size_t *threads);

/**
 * Reports memory use.
 *
 * # Safety
 * `model` is null or an open model, `memory` null or a struct that begins with its size.
 */
int32_t vaquita_model_memory(const struct vaquita_model *model, struct vaquita_memory *memory);

/**
 * Starts a conversation. Close the session with vaquita_session_close().
 *
 * # Safety
 * `model` is null or an open model, `session` null or a writable pointer.
 */
int32_t vaquita_session_create(const struct vaquita_model *model, struct vaquita_session **session);

/**
 * Closes a session. Passing null is a no-op. Returns VAQUITA_ERROR_BUSY, and leaves the session
 * open, while it generates.
 *
 * # Safety
 * `session` is null or an open session, which no other call uses, except one that generates.
 */
int32_t vaquita_session_close(struct vaquita_session *session);

/**
 * Cancels generation before the next layer is computed. May be called from any thread, including
 * the callback. No effect if the session does not generate.
 *
 * # Safety
 * `session` is null or an open session.
 */
int32_t vaquita_session_cancel(const struct vaquita_session *session);

/**
 * Sets the system prompt; an empty one removes it.
 *
 * # Safety
 * `session` is null or an open session, `system` null or a string.
 */
int32_t vaquita_session_set_system(const struct vaquita_session *session, const char *system);

/**
 * Sets the tools that the model may call: a JSON list in OpenAI's format; an empty string removes
 * them. With parse_calls of vaquita_generate_options, calls are events, and
 * vaquita_session_add_tool_result() answers them; otherwise calls appear in the answer, in the
 * model's own format, and the result of a tool is a message with the role "tool".
 *
 * # Safety
 * `session` is null or an open session, `tools` null or a string.
 */
int32_t vaquita_session_set_tools(const struct vaquita_session *session, const char *tools);

/**
 * Replaces the variables of the model's chat template: a JSON object, such as {"enable_thinking":
 * false}; an empty string removes them.
 *
 * # Safety
 * `session` is null or an open session, `variables` null or a string.
 */
int32_t vaquita_session_set_template_variables(const struct vaquita_session *session, const char *variables);

/**
 * Adds a message without generating an answer: an earlier turn, or the result of a tool. `role` is
 * "system", "user", "assistant" or "tool".
 *
 * # Safety
 * `session` is null or an open session, `role` and `content` null or strings.
 */
int32_t vaquita_session_add_message(const struct vaquita_session *session,
                                    const char *role,
                                    const char *content);

/**
 * Adds the result of a tool call. `id` is the call_id of its events.
 *
 * # Safety
 * `session` is null or an open session, `id` and `content` null or strings.
 */
int32_t vaquita_session_add_tool_result(const struct vaquita_session *session,
                                        const char *id,
                                        const char *content);

/**
 * Resets the conversation, except for the system prompt and the tools.
 *
 * # Safety
 * `session` is null or an open session.
 */
int32_t vaquita_session_reset(const struct vaquita_session *session);

/**
 * Saves the conversation and its cache to a file, so that it can continue later without being
 * processed again.
 *
 * # Safety
 * `session` is null or an open session, `path` null or a string.
 */
int32_t vaquita_session_save(const struct vaquita_session *session, const char *path);

/**
 * Replaces the conversation by a saved one of the same model. If this fails, the conversation is
 * unchanged.
 *
 * # Safety
 * `session` is null or an open session, `path` null or a string.
 */
int32_t vaquita_session_restore(const struct vaquita_session *session, const char *path);

/**
 * Cost of the session's last answer. VAQUITA_ERROR_ARGUMENT if there is none.
 *
 * # Safety
 * `session` is null or an open session, `stats` null or a struct that begins with its size.
 */
int32_t vaquita_session_stats(const struct vaquita_session *session, struct vaquita_stats *stats);

/**
 * Message of the last failed call of this thread; valid until the next one that fails.
 */
const char *vaquita_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VAQUITA_H */
