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
 * Version of this interface. It rises when programs must be compiled anew; structs may grow without that.
 */
#define VAQUITA_ABI_VERSION 1

/**
 * More of the prompt was read.
 */
#define VAQUITA_EVENT_PROMPT 0

/**
 * A token was picked; its text may follow, now or with the next.
 */
#define VAQUITA_EVENT_TOKEN 1

/**
 * The model thinks: a piece of what stands between tags such as <think> and </think>.
 */
#define VAQUITA_EVENT_REASONING 2

/**
 * The model answers: a piece of the answer.
 */
#define VAQUITA_EVENT_ANSWER 3

/**
 * All that came as the answer so far was reasoning: it ended with a tag that nothing had opened.
 */
#define VAQUITA_EVENT_WAS_REASONING 4

/**
 * The meter gives the power now, in watts.
 */
#define VAQUITA_METER_WATTS 0

/**
 * The meter gives a counter, in joules, that does not go back.
 */
#define VAQUITA_METER_JOULES 1

/**
 * Give back experts beyond one token's: the app is in the background.
 */
#define VAQUITA_TRIM_BACKGROUND 0

/**
 * Give back all that is not needed to compute at all: the system is about to end processes.
 */
#define VAQUITA_TRIM_CRITICAL 1

/**
 * All threads compute.
 */
#define VAQUITA_THERMAL_NOMINAL 0

/**
 * Three quarters of them, rounded up.
 */
#define VAQUITA_THERMAL_FAIR 1

/**
 * Half, rounded up.
 */
#define VAQUITA_THERMAL_SERIOUS 2

/**
 * One.
 */
#define VAQUITA_THERMAL_CRITICAL 3

/**
 * The model ended the answer.
 */
#define VAQUITA_STOP_END 0

/**
 * A stop text came up.
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
 * It was cancelled.
 */
#define VAQUITA_STOP_CANCELLED 4

/**
 * It worked.
 */
#define VAQUITA_OK 0

/**
 * An argument makes no sense: null, not UTF-8, out of range.
 */
#define VAQUITA_ERROR_ARGUMENT 1

/**
 * There is no such file.
 */
#define VAQUITA_ERROR_NOT_FOUND 2

/**
 * A file cannot be read or written.
 */
#define VAQUITA_ERROR_IO 3

/**
 * A file is not what it should be: no model, or damaged, or another version's.
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
 * The conversation cannot be put into the model's chat template.
 */
#define VAQUITA_ERROR_TEMPLATE 7

/**
 * The model failed.
 */
#define VAQUITA_ERROR_MODEL 8

/**
 * The session is at work in another call, or the model has sessions that are open.
 */
#define VAQUITA_ERROR_BUSY 9

/**
 * A mistake in this library: close the session or the model that it happened to.
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
 * How an answer is generated. vaquita_generate_options_init() fills in the defaults.
 */
typedef struct vaquita_generate_options {
  /**
   * sizeof(vaquita_generate_options).
   */
  size_t struct_size;
  /**
   * At most so many tokens, the reasoning among them; 0: until the context is full.
   */
  size_t max_tokens;
  /**
   * 0 always takes the likeliest token. Default: 0.6.
   */
  float temperature;
  /**
   * Only the likeliest so many tokens; 0: all.
   */
  size_t top_k;
  /**
   * The likeliest tokens that together have this probability. Default: 0.95.
   */
  float top_p;
  /**
   * Tokens at least so likely relative to the likeliest.
   */
  float min_p;
  /**
   * Penalty on tokens that were used lately; 1: none.
   */
  float repetition_penalty;
  /**
   * The same seed gives the same answer.
   */
  uint64_t seed;
  /**
   * Texts that end the answer; null where stop_count is 0.
   */
  const char *const *stop;
  /**
   * How many.
   */
  size_t stop_count;
} vaquita_generate_options;

/**
 * What happens while an answer is generated. It lives as long as the callback runs.
 */
typedef struct vaquita_event {
  /**
   * VAQUITA_EVENT_*. Programs must let kinds pass that they do not know.
   */
  int32_t kind;
  /**
   * The token.
   */
  uint32_t token;
  /**
   * Whole characters in UTF-8, ended by a zero byte; empty where there is no text. The model may say zero bytes:
   * what counts is text_length.
   */
  const char *text;
  /**
   * Bytes of the text.
   */
  size_t text_length;
  /**
   * Tokens of the prompt read so far, and ...
   */
  size_t prompt_done;
  /**
   * ... in all.
   */
  size_t prompt_total;
} vaquita_event;

/**
 * Takes events, in the thread that generates. 0 goes on, anything else ends the answer. It must not unwind.
 */
typedef int32_t (*vaquita_on_event)(const struct vaquita_event *event, void *user_data);

/**
 * Reads a meter. NaN or a negative number: it cannot be read, and that answer's energy is unmeasured. It must not
 * unwind.
 */
typedef double (*vaquita_read_meter)(void *user_data);

/**
 * How a model is opened. vaquita_model_options_init() fills in the defaults.
 */
typedef struct vaquita_model_options {
  /**
   * sizeof(vaquita_model_options).
   */
  size_t struct_size;
  /**
   * Memory of the whole process: "2GiB", "800M", "60%" or "auto". What does not fit is read from the file when it is
   * needed. Null: no limit; the file is mapped and memory is left to the system.
   */
  const char *memory;
  /**
   * Tokens that a conversation may have; 0: the model's.
   */
  size_t context;
  /**
   * Sessions at the same time that the memory budget is to hold; without a budget there is no limit.
   */
  size_t sessions;
  /**
   * Threads; 0: as many as there are cores.
   */
  size_t threads;
  /**
   * Numbers of the sessions' caches: "f16", or "q8", which takes about half the memory and costs a little precision.
   * Null: "f16".
   */
  const char *cache;
} vaquita_model_options;

/**
 * Where memory goes, in bytes; -1 where it is not measured, or no budget says it. Set struct_size before the call.
 */
typedef struct vaquita_memory {
  /**
   * sizeof(vaquita_memory).
   */
  size_t struct_size;
  /**
   * Resident memory of the process now.
   */
  int64_t process;
  /**
   * The most so far.
   */
  int64_t process_peak;
  /**
   * The budget.
   */
  int64_t budget;
  /**
   * Planned for weights that are not routed experts.
   */
  int64_t dense;
  /**
   * Planned for the caches of all sessions.
   */
  int64_t cache;
  /**
   * Planned for what a chunk of a prompt computes with.
   */
  int64_t scratch;
  /**
   * What streamed experts may take; -1 where the file is mapped.
   */
  int64_t experts_limit;
  /**
   * What they take now.
   */
  int64_t experts;
} vaquita_memory;

/**
 * What an answer cost. A floating-point figure that was not measured is NaN: test it with isnan(). Set struct_size
 * before the call.
 */
typedef struct vaquita_stats {
  /**
   * sizeof(vaquita_stats).
   */
  size_t struct_size;
  /**
   * Why the answer ended: VAQUITA_STOP_*.
   */
  int32_t stop;
  /**
   * Tokens of the prompt, the whole conversation.
   */
  size_t prompt_tokens;
  /**
   * Those that were in the cache already.
   */
  size_t cached_tokens;
  /**
   * Tokens generated.
   */
  size_t tokens;
  /**
   * Seconds from the call to the first token.
   */
  double first_token_seconds;
  /**
   * Tokens of the prompt read per second.
   */
  double prompt_tokens_per_second;
  /**
   * Tokens generated per second, after the first.
   */
  double tokens_per_second;
  /**
   * Joules until the first token, of all that the machine's meter, or the app's, covers.
   */
  double prompt_joules;
  /**
   * Joules per token after the first.
   */
  double joules_per_token;
  /**
   * Share of streamed experts that were in memory when they were needed.
   */
  double hit_rate;
  /**
   * Bytes of experts read from the file, by all sessions meanwhile; -1 where the file is mapped.
   */
  int64_t bytes_read;
  /**
   * Bytes of this session's cache.
   */
  size_t cache_bytes;
} vaquita_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The library's `VAQUITA_ABI_VERSION`: a program whose header says another must not go on.
 */
uint32_t vaquita_abi_version(void);

/**
 * The library's version, such as "0.1.0".
 */
const char *vaquita_version(void);

/**
 * Fills in the defaults. `struct_size` is sizeof(vaquita_generate_options).
 *
 * # Safety
 * `options` is null or points to `struct_size` writable bytes.
 */
int32_t vaquita_generate_options_init(struct vaquita_generate_options *options, size_t struct_size);

/**
 * Answers `user`, or what was said so far where it is null, and returns when the answer has ended; VAQUITA_OK also where
 * it was cancelled. `options` may be null.
 *
 * The answer goes into the conversation without its reasoning, also one that was cut short. Where the call fails, or was
 * cancelled before the model answered anything, the conversation is as it was.
 *
 * # Safety
 * `session` is null or an open session, `user` null or a text, `options` null or a struct; `on_event` may be called with
 * `user_data`.
 */
int32_t vaquita_session_generate(const struct vaquita_session *session,
                                 const char *user,
                                 const struct vaquita_generate_options *options,
                                 vaquita_on_event on_event,
                                 void *user_data);

/**
 * From the next answer on, energy in vaquita_stats is measured with a meter of the app's own: `unit` is VAQUITA_METER_*.
 * `read` is called every tenth of a second for each session that generates, in threads of the library. It and `user_data` must stay good until the model is closed or has another meter, and the
 * answers that began before have ended. Null: the machine's own meter, if there is one.
 *
 * # Safety
 * `model` is null or an open model; `read` and `user_data` as above.
 */
int32_t vaquita_model_set_meter(const struct vaquita_model *model,
                                int32_t unit,
                                vaquita_read_meter read,
                                void *user_data);

/**
 * Fills in the defaults. `struct_size` is sizeof(vaquita_model_options).
 *
 * # Safety
 * `options` is null or points to `struct_size` writable bytes.
 */
int32_t vaquita_model_options_init(struct vaquita_model_options *options, size_t struct_size);

/**
 * Opens a GGUF file. `options` may be null. The model is to be closed with vaquita_model_close().
 *
 * # Safety
 * `path` is a text or null, `options` null or a struct, `model` null or a place for a pointer.
 */
int32_t vaquita_model_open(const char *path,
                           const struct vaquita_model_options *options,
                           struct vaquita_model **model);

/**
 * Closes a model. Null is nothing to close. VAQUITA_ERROR_BUSY, and the model stays open, while it has sessions.
 *
 * # Safety
 * `model` is null or an open model, which no other call uses.
 */
int32_t vaquita_model_close(struct vaquita_model *model);

/**
 * Changes the memory of the whole process, by the next layer, also while a session generates. A mapped model keeps
 * nothing of its own that it could give back: there it changes nothing.
 *
 * # Safety
 * `model` is null or an open model.
 */
int32_t vaquita_model_set_memory_budget(const struct vaquita_model *model,
                                        uint64_t bytes);

/**
 * Gives memory back until vaquita_model_set_memory_budget() says otherwise: `level` is VAQUITA_TRIM_*.
 *
 * # Safety
 * `model` is null or an open model.
 */
int32_t vaquita_model_trim(const struct vaquita_model *model, int32_t level);

/**
 * Says how hot the device is, VAQUITA_THERMAL_*: from the next matrix product on, fewer threads compute. Answers stay
 * the same. `threads`, which may be null, gets their number.
 *
 * # Safety
 * `model` is null or an open model, `threads` null or a place for a number.
 */
int32_t vaquita_model_thermal_hint(const struct vaquita_model *model,
                                   int32_t thermal,
                                   size_t *threads);

/**
 * Says where memory goes.
 *
 * # Safety
 * `model` is null or an open model, `memory` null or a struct that begins with its size.
 */
int32_t vaquita_model_memory(const struct vaquita_model *model, struct vaquita_memory *memory);

/**
 * Begins a conversation. The session is to be closed with vaquita_session_close().
 *
 * # Safety
 * `model` is null or an open model, `session` null or a place for a pointer.
 */
int32_t vaquita_session_create(const struct vaquita_model *model, struct vaquita_session **session);

/**
 * Closes a session. Null is nothing to close. VAQUITA_ERROR_BUSY, and the session stays open, while it generates.
 *
 * # Safety
 * `session` is null or an open session; apart from one that generates, no other call uses it.
 */
int32_t vaquita_session_close(struct vaquita_session *session);

/**
 * Ends what the session generates, before the next layer is computed. From any thread, also from the callback. Where
 * it generates nothing, nothing happens.
 *
 * # Safety
 * `session` is null or an open session.
 */
int32_t vaquita_session_cancel(const struct vaquita_session *session);

/**
 * Sets the system prompt; an empty one removes it.
 *
 * # Safety
 * `session` is null or an open session, `system` null or a text.
 */
int32_t vaquita_session_set_system(const struct vaquita_session *session, const char *system);

/**
 * Sets the tools that the model may call: a list in JSON, as OpenAI's interface writes them; an empty text removes
 * them. Calls come in the answer, in the words that the model was taught; what a tool returns is a message of "tool".
 *
 * # Safety
 * `session` is null or an open session, `tools` null or a text.
 */
int32_t vaquita_session_set_tools(const struct vaquita_session *session,
                                  const char *tools);

/**
 * Sets variables of the model's chat template, in place of those that were set: an object in JSON, such as
 * {"enable_thinking": false}; an empty text removes them.
 *
 * # Safety
 * `session` is null or an open session, `variables` null or a text.
 */
int32_t vaquita_session_set_template_variables(const struct vaquita_session *session, const char *variables);

/**
 * Adds a message without an answer: earlier turns, or what a tool returned. `role` is "system", "user", "assistant" or
 * "tool".
 *
 * # Safety
 * `session` is null or an open session, `role` and `content` null or texts.
 */
int32_t vaquita_session_add_message(const struct vaquita_session *session,
                                    const char *role,
                                    const char *content);

/**
 * Forgets what was said, but for the system prompt and the tools.
 *
 * # Safety
 * `session` is null or an open session.
 */
int32_t vaquita_session_reset(const struct vaquita_session *session);

/**
 * Writes the conversation and its cache to a file, so that it goes on later without being read again.
 *
 * # Safety
 * `session` is null or an open session, `path` null or a text.
 */
int32_t vaquita_session_save(const struct vaquita_session *session, const char *path);

/**
 * Goes on with a saved conversation of the same model, in place of this one; where that fails, this one stays.
 *
 * # Safety
 * `session` is null or an open session, `path` null or a text.
 */
int32_t vaquita_session_restore(const struct vaquita_session *session,
                                const char *path);

/**
 * What the session's last answer cost. VAQUITA_ERROR_ARGUMENT where there was none.
 *
 * # Safety
 * `session` is null or an open session, `stats` null or a struct that begins with its size.
 */
int32_t vaquita_session_stats(const struct vaquita_session *session, struct vaquita_stats *stats);

/**
 * What went wrong in the last call of this thread that failed; valid until the next that fails.
 */
const char *vaquita_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VAQUITA_H */
