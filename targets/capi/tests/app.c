/* An app, as the library's users write it. Run with a model, a folder to write to, a number of open/close cycles and a
 * number of threads; it prints the name of each check and ends with 1 at the first that fails. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vaquita.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition, vaquita_last_error());      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define OK(call) CHECK((call) == VAQUITA_OK)
#define FAILS(call, status, words) CHECK((call) == (status) && strstr(vaquita_last_error(), words) != NULL)

static const char *path;
static size_t threads;

/* What a session says. */
typedef struct {
    vaquita_session *session;
    char reasoning[4096], answer[4096];
    size_t tokens, pieces, prompt_done, prompt_total;
    size_t cancel_at; /* cancel at this token, from `how` */
    enum { NOWHERE, CALLBACK, RETURN, OTHER_THREAD } how;
    atomic_int wanted, cancelled;
} said_t;

static int is_utf8(const unsigned char *text, size_t length) {
    for (size_t i = 0; i < length;) {
        size_t more = text[i] < 0x80 ? 0 : text[i] >= 0xf0 ? 3 : text[i] >= 0xe0 ? 2 : text[i] >= 0xc2 ? 1 : 9;
        if (i + more >= length) return 0;
        for (size_t j = 1; j <= more; j++)
            if ((text[i + j] & 0xc0) != 0x80) return 0;
        i += more + 1;
    }
    return 1;
}

static int32_t on_event(const vaquita_event *event, void *user_data) {
    said_t *said = user_data;
    CHECK(event->text[event->text_length] == 0);
    CHECK(is_utf8((const unsigned char *)event->text, event->text_length));
    char *into = event->kind == VAQUITA_EVENT_REASONING ? said->reasoning : said->answer;
    CHECK(strlen(into) + event->text_length < sizeof said->answer);
    strcat(into, event->text);
    said->pieces += event->text_length > 0;
    if (event->kind == VAQUITA_EVENT_PROMPT) {
        said->prompt_done = event->prompt_done;
        said->prompt_total = event->prompt_total;
    }
    if (event->kind != VAQUITA_EVENT_TOKEN) return 0;
    if (++said->tokens != said->cancel_at) return 0;
    if (said->how == CALLBACK) OK(vaquita_session_cancel(said->session));
    if (said->how == OTHER_THREAD) {
        atomic_store(&said->wanted, 1);
        while (!atomic_load(&said->cancelled)) sched_yield();
    }
    return said->how == RETURN;
}

static void *cancel_when_wanted(void *data) {
    said_t *said = data;
    while (!atomic_load(&said->wanted)) sched_yield();
    /* The session is at work: all but cancel is refused, and nothing is harmed. */
    FAILS(vaquita_session_reset(said->session), VAQUITA_ERROR_BUSY, "at work");
    FAILS(vaquita_session_close(said->session), VAQUITA_ERROR_BUSY, "at work");
    OK(vaquita_session_cancel(said->session));
    atomic_store(&said->cancelled, 1);
    return NULL;
}

static vaquita_model *open_with(const char *memory, size_t sessions) {
    vaquita_model_options options;
    OK(vaquita_model_options_init(&options, sizeof options));
    options.memory = memory;
    options.sessions = sessions;
    options.context = 512;
    options.threads = threads;
    vaquita_model *model = NULL;
    OK(vaquita_model_open(path, &options, &model));
    return model;
}

static vaquita_session *create(vaquita_model *model) {
    vaquita_session *session = NULL;
    OK(vaquita_session_create(model, &session));
    return session;
}

static void ask(vaquita_session *session, const char *question, said_t *said) {
    vaquita_generate_options options;
    OK(vaquita_generate_options_init(&options, sizeof options));
    options.temperature = 0;
    options.max_tokens = 200;
    said->session = session;
    OK(vaquita_session_generate(session, question, &options, on_event, said));
}

static vaquita_stats stats_of(vaquita_session *session) {
    vaquita_stats stats = {.struct_size = sizeof stats};
    OK(vaquita_session_stats(session, &stats));
    return stats;
}

static void streaming(vaquita_model *model) {
    vaquita_session *session = create(model);
    said_t said = {0};
    ask(session, "723 * 8 = ?", &said);
    CHECK(strcmp(said.answer, "5784") == 0);
    CHECK(strncmp(said.reasoning, "3*8=24, write 4 carry 2.", 24) == 0);
    CHECK(said.pieces > 10 && said.prompt_done == said.prompt_total && said.prompt_total > 0);
    vaquita_stats stats = stats_of(session);
    CHECK(stats.stop == VAQUITA_STOP_END && stats.tokens == said.tokens);
    CHECK(stats.prompt_tokens == said.prompt_total && stats.cached_tokens == 0 && stats.cache_bytes > 0);
    CHECK(stats.first_token_seconds > 0 && stats.tokens_per_second > 0 && stats.prompt_tokens_per_second > 0);
    CHECK(isnan(stats.joules_per_token) || stats.joules_per_token > 0); /* unmeasured is not 0 */
    CHECK(isnan(stats.hit_rate) && stats.bytes_read == -1);             /* it is mapped */
    OK(vaquita_session_close(session));
}

static void many_turns(vaquita_model *model) {
    vaquita_session *session = create(model);
    said_t first = {0}, second = {0}, third = {0}, fourth = {0};
    ask(session, "723 * 8 = ?", &first);
    ask(session, "What is the capital of France?", &second);
    vaquita_stats stats = stats_of(session);
    CHECK(stats.cached_tokens > 0 && stats.prompt_tokens > stats.cached_tokens);
    OK(vaquita_session_reset(session));
    ask(session, "723 * 8 = ?", &third);
    CHECK(stats_of(session).prompt_tokens == first.prompt_total && strcmp(third.answer, "5784") == 0);
    /* The same as turns that the app has kept. */
    OK(vaquita_session_reset(session));
    OK(vaquita_session_add_message(session, "user", "723 * 8 = ?"));
    OK(vaquita_session_add_message(session, "assistant", first.answer));
    OK(vaquita_session_add_message(session, "user", "What is the capital of France?"));
    ask(session, NULL, &fourth);
    CHECK(strcmp(second.answer, fourth.answer) == 0 && strcmp(second.reasoning, fourth.reasoning) == 0);
    CHECK(second.prompt_total == fourth.prompt_total);
    OK(vaquita_session_close(session));
}

static void system_prompt_and_tools(vaquita_model *model) {
    vaquita_session *session = create(model);
    said_t plain = {0}, with_system = {0}, with_tools = {0};
    ask(session, "What is the weather in Algiers?", &plain);
    CHECK(strstr(plain.answer, "get_weather") != NULL);
    OK(vaquita_session_reset(session));
    OK(vaquita_session_set_system(session, "You are brief."));
    ask(session, "What is the weather in Algiers?", &with_system);
    CHECK(with_system.prompt_total > plain.prompt_total);
    OK(vaquita_session_reset(session));
    OK(vaquita_session_set_system(session, ""));
    OK(vaquita_session_set_tools(session, "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\","
                                          "\"parameters\": {\"type\": \"object\"}}}]"));
    ask(session, "What is the weather in Algiers?", &with_tools);
    OK(vaquita_session_add_message(session, "tool", "{\"celsius\": 31}"));
    FAILS(vaquita_session_set_tools(session, "{\"no\": \"list\"}"), VAQUITA_ERROR_ARGUMENT, "list");
    FAILS(vaquita_session_set_tools(session, "not JSON"), VAQUITA_ERROR_ARGUMENT, "JSON");
    OK(vaquita_session_set_tools(session, ""));
    OK(vaquita_session_set_template_variables(session, "{\"enable_thinking\": false}"));
    FAILS(vaquita_session_set_template_variables(session, "[1]"), VAQUITA_ERROR_ARGUMENT, "an object in JSON");
    FAILS(vaquita_session_set_template_variables(session, NULL), VAQUITA_ERROR_ARGUMENT, "variables is null");
    OK(vaquita_session_set_template_variables(session, ""));
    OK(vaquita_session_close(session));
}

/* Calls of a session. */
typedef struct {
    char name[64], id[64], arguments[256], answer[512];
    int ended, malformed;
} calls_t;

static int32_t on_call(const vaquita_event *event, void *user_data) {
    calls_t *calls = user_data;
    if (event->kind == VAQUITA_EVENT_CALL_BEGIN) {
        CHECK(calls->name[0] == 0 && strlen(event->call_id) < sizeof calls->id);
        snprintf(calls->name, sizeof calls->name, "%s", event->text);
        snprintf(calls->id, sizeof calls->id, "%s", event->call_id);
    } else if (event->kind == VAQUITA_EVENT_CALL_ARGUMENTS) {
        CHECK(strcmp(calls->id, event->call_id) == 0);
        strncat(calls->arguments, event->text, sizeof calls->arguments - strlen(calls->arguments) - 1);
    } else if (event->kind == VAQUITA_EVENT_CALL_END) {
        CHECK(strcmp(calls->id, event->call_id) == 0);
        calls->ended++;
    } else {
        CHECK(event->call_id[0] == 0);
        calls->malformed += event->kind == VAQUITA_EVENT_CALL_MALFORMED;
        if (event->kind == VAQUITA_EVENT_ANSWER)
            strncat(calls->answer, event->text, sizeof calls->answer - strlen(calls->answer) - 1);
    }
    return 0;
}

static void parsed_calls(vaquita_model *model) {
    vaquita_session *session = create(model);
    OK(vaquita_session_set_tools(session, "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\","
                                          "\"parameters\": {\"type\": \"object\"}}}]"));
    vaquita_generate_options options;
    OK(vaquita_generate_options_init(&options, sizeof options));
    options.temperature = 0;
    options.max_tokens = 200;
    options.parse_calls = 1;
    calls_t calls = {0}, after = {0};
    OK(vaquita_session_generate(session, "What is the weather in Algiers?", &options, on_call, &calls));
    CHECK(strcmp(calls.name, "get_weather") == 0 && calls.ended == 1 && calls.malformed == 0);
    CHECK(strcmp(calls.arguments, "{\"city\": \"Algiers\"}") == 0);
    CHECK(strncmp(calls.id, "call_", 5) == 0 && calls.answer[0] == 0);
    FAILS(vaquita_session_add_tool_result(session, "call_of_nobody", "{}"), VAQUITA_ERROR_ARGUMENT, "call_of_nobody");
    FAILS(vaquita_session_add_tool_result(session, NULL, "{}"), VAQUITA_ERROR_ARGUMENT, "id is null");
    OK(vaquita_session_add_tool_result(session, calls.id, "{\"celsius\": 31}"));
    OK(vaquita_session_generate(session, NULL, &options, on_call, &after));
    CHECK(after.answer[0] != 0 && after.name[0] == 0);
    /* A program with an older header does not have parse_calls: calls stay text. */
    OK(vaquita_session_reset(session));
    options.struct_size = offsetof(vaquita_generate_options, parse_calls);
    calls_t text = {0};
    OK(vaquita_session_generate(session, "What is the weather in Algiers?", &options, on_call, &text));
    CHECK(text.name[0] == 0 && strstr(text.answer, "get_weather") != NULL);
    OK(vaquita_session_close(session));
}

static void cancelling(vaquita_model *model) {
    for (int how = CALLBACK; how <= OTHER_THREAD; how++) {
        vaquita_session *session = create(model);
        said_t said = {.session = session, .cancel_at = 3, .how = how};
        pthread_t other;
        if (how == OTHER_THREAD) CHECK(pthread_create(&other, NULL, cancel_when_wanted, &said) == 0);
        ask(session, "723 * 8 = ?", &said);
        if (how == OTHER_THREAD) CHECK(pthread_join(other, NULL) == 0);
        CHECK(said.tokens == 3 && stats_of(session).stop == VAQUITA_STOP_CANCELLED);
        CHECK(said.answer[0] == 0);
        /* Nothing came of that turn, and the session goes on. */
        said_t next = {0};
        ask(session, "723 * 8 = ?", &next);
        CHECK(strcmp(next.answer, "5784") == 0 && next.prompt_total == said.prompt_total);
        CHECK(stats_of(session).cached_tokens > 0);
        OK(vaquita_session_close(session));
    }
}

static void save_and_restore(vaquita_model *model, const char *folder) {
    char file[1024];
    snprintf(file, sizeof file, "%s/session", folder);
    vaquita_session *session = create(model), *later = create(model);
    said_t first = {0}, second = {0}, again = {0};
    ask(session, "723 * 8 = ?", &first);
    OK(vaquita_session_save(session, file));
    ask(session, "What is the capital of France?", &second);
    OK(vaquita_session_restore(later, file));
    ask(later, "What is the capital of France?", &again);
    CHECK(strcmp(second.answer, again.answer) == 0 && strcmp(second.reasoning, again.reasoning) == 0);
    CHECK(stats_of(later).cached_tokens == stats_of(session).cached_tokens && again.prompt_total == second.prompt_total);

    FAILS(vaquita_session_restore(later, path), VAQUITA_ERROR_BAD_FILE, "not a saved session");
    FAILS(vaquita_session_restore(later, "/no/such/file"), VAQUITA_ERROR_NOT_FOUND, "/no/such/file");
    FAILS(vaquita_session_save(later, "/no/such/folder/file"), VAQUITA_ERROR_NOT_FOUND, "/no/such/folder");
    FILE *damaged = fopen(file, "r+b");
    CHECK(damaged != NULL && fseek(damaged, -20, SEEK_END) == 0 && fwrite("x", 1, 1, damaged) == 1 && fclose(damaged) == 0);
    FAILS(vaquita_session_restore(later, file), VAQUITA_ERROR_BAD_FILE, "damaged");
    OK(vaquita_session_close(session));
    OK(vaquita_session_close(later));
}

static void *ask_in_thread(void *data) {
    said_t *said = data;
    ask(said->session, "723 * 8 = ?", said);
    return NULL;
}

static void two_sessions(vaquita_model *model) {
    said_t said[2] = {{.session = create(model)}, {.session = create(model)}};
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&thread[i], NULL, ask_in_thread, &said[i]) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
        CHECK(strcmp(said[i].answer, "5784") == 0);
    }
    FAILS(vaquita_model_close(model), VAQUITA_ERROR_BUSY, "2 open sessions");
    for (int i = 0; i < 2; i++) OK(vaquita_session_close(said[i].session));
}

static void memory_and_heat(void) {
    vaquita_model *model = open_with("1GiB", 1);
    vaquita_memory memory = {.struct_size = sizeof memory};
    OK(vaquita_model_memory(model, &memory));
    CHECK(memory.budget == 1 << 30 && memory.experts_limit == -1 && memory.dense > 0 && memory.cache > 0);
    CHECK(memory.process == -1 || memory.process > 0);
    vaquita_session *session = create(model), *second = NULL;
    FAILS(vaquita_session_create(model, &second), VAQUITA_ERROR_MEMORY, "1 sessions");
    OK(vaquita_session_close(session));
    OK(vaquita_model_close(model));

    vaquita_model_options too_small = {.struct_size = sizeof too_small, .memory = "1M", .context = 512};
    FAILS(vaquita_model_open(path, &too_small, &model), VAQUITA_ERROR_MEMORY, "needs at least");
    /* A little more than the least, which each try tells anew since it grows with the process (valgrind keeps what was
       freed): a part of the experts is streamed. */
    int32_t status = VAQUITA_ERROR_MEMORY;
    for (int more = 1; more <= 8 && status == VAQUITA_ERROR_MEMORY; more++) {
        double least = 0;
        CHECK(sscanf(strstr(vaquita_last_error(), "needs at least "), "needs at least %lf", &least) == 1);
        char tight[32];
        snprintf(tight, sizeof tight, "%.0fKiB", (least + more) * 1024);
        vaquita_model_options options = {.struct_size = sizeof options, .memory = tight, .context = 512};
        options.threads = threads;
        status = vaquita_model_open(path, &options, &model);
    }
    OK(status);
    OK(vaquita_model_memory(model, &memory));
    CHECK(memory.experts_limit > 0);
    session = create(model);
    said_t said[3] = {{0}};
    ask(session, "723 * 8 = ?", &said[0]);
    vaquita_stats stats = stats_of(session);
    CHECK(strcmp(said[0].answer, "5784") == 0);
    CHECK(stats.hit_rate > 0 && stats.hit_rate <= 1 && stats.bytes_read > 0);
    OK(vaquita_model_trim(model, VAQUITA_TRIM_CRITICAL));
    vaquita_memory trimmed = {.struct_size = sizeof trimmed};
    OK(vaquita_model_memory(model, &trimmed));
    CHECK(trimmed.experts_limit < memory.experts_limit && trimmed.experts <= trimmed.experts_limit);
    OK(vaquita_session_reset(session));
    ask(session, "723 * 8 = ?", &said[1]);
    CHECK(strcmp(said[1].answer, "5784") == 0);
    FAILS(vaquita_model_set_memory_budget(model, 1), VAQUITA_ERROR_MEMORY, "needs at least");
    OK(vaquita_model_set_memory_budget(model, (uint64_t)memory.budget));

    size_t cool = 0, hot = 0;
    OK(vaquita_model_thermal_hint(model, VAQUITA_THERMAL_CRITICAL, &hot));
    CHECK(hot == 1);
    OK(vaquita_session_reset(session));
    ask(session, "723 * 8 = ?", &said[2]);
    CHECK(strcmp(said[2].reasoning, said[0].reasoning) == 0 && strcmp(said[2].answer, "5784") == 0);
    OK(vaquita_model_thermal_hint(model, VAQUITA_THERMAL_NOMINAL, &cool));
    CHECK(threads == 0 ? cool >= 1 : cool == threads);
    OK(vaquita_session_close(session));
    OK(vaquita_model_close(model));
}

static double read_meter(void *user_data) {
    double (*meter)[2] = user_data; /* what it says, and by how much that rises with each reading */
    return (*meter)[0] += (*meter)[1];
}

static void own_meter(vaquita_model *model) {
    double five_watts[2] = {5, 0}, counter[2] = {100, 0.25}, broken[2] = {NAN, 0};
    vaquita_session *session = create(model);
    said_t said[4] = {{0}};
    OK(vaquita_model_set_meter(model, VAQUITA_METER_WATTS, read_meter, five_watts));
    ask(session, "723 * 8 = ?", &said[0]);
    vaquita_stats stats = stats_of(session);
    double part = stats.prompt_joules / (5 * stats.first_token_seconds);
    CHECK(part > 0.5 && part < 1.5 && stats.joules_per_token > 0);
    OK(vaquita_session_reset(session));
    OK(vaquita_model_set_meter(model, VAQUITA_METER_JOULES, read_meter, counter));
    ask(session, "723 * 8 = ?", &said[1]);
    stats = stats_of(session);
    /* Every reading counts a quarter of a joule; the first is where it begins. */
    double all = stats.prompt_joules + stats.joules_per_token * (double)(stats.tokens - 1);
    CHECK(fabs(all - (counter[0] - 100.25)) < 1e-6);
    OK(vaquita_session_reset(session));
    OK(vaquita_model_set_meter(model, VAQUITA_METER_WATTS, read_meter, broken));
    ask(session, "723 * 8 = ?", &said[2]);
    CHECK(isnan(stats_of(session).joules_per_token) && isnan(stats_of(session).prompt_joules));
    OK(vaquita_model_set_meter(model, VAQUITA_METER_WATTS, NULL, NULL));
    OK(vaquita_session_reset(session));
    ask(session, "723 * 8 = ?", &said[3]);
    FAILS(vaquita_model_set_meter(model, 7, read_meter, NULL), VAQUITA_ERROR_ARGUMENT, "VAQUITA_METER_");
    OK(vaquita_session_close(session));
}

static void small_caches(void) {
    long bytes[2];
    for (int i = 0; i < 2; i++) {
        vaquita_model_options options;
        OK(vaquita_model_options_init(&options, sizeof options));
        options.cache = i == 0 ? NULL : "q8";
        options.context = 512;
        options.threads = threads;
        options.memory = "1GiB";
        vaquita_model *model = NULL;
        OK(vaquita_model_open(path, &options, &model));
        vaquita_memory memory = {.struct_size = sizeof memory};
        OK(vaquita_model_memory(model, &memory));
        bytes[i] = (long)memory.cache;
        vaquita_session *session = create(model);
        said_t said = {0};
        ask(session, "723 * 8 = ?", &said);
        CHECK(strcmp(said.answer, "5784") == 0);
        OK(vaquita_session_close(session));
        OK(vaquita_model_close(model));
    }
    /* 128 of a position's 160 numbers are in 8 bits with scales of 2 bytes per 32. */
    CHECK(bytes[1] * 320 == bytes[0] * 200);
}

/* Drafts change no answer; they are counted. */
static void drafts(void) {
    said_t said[3] = {{0}};
    const char *modes[] = {NULL, "lookup:4", "mtp:2"};
    for (int i = 0; i < 3; i++) {
        vaquita_model_options options;
        OK(vaquita_model_options_init(&options, sizeof options));
        options.context = 512;
        options.threads = threads;
        options.drafts = modes[i];
        vaquita_model *model = NULL;
        OK(vaquita_model_open(path, &options, &model));
        vaquita_session *session = create(model);
        ask(session, "723 * 8 = ?", &said[i]);
        CHECK(strcmp(said[i].answer, "5784") == 0 && strcmp(said[i].reasoning, said[0].reasoning) == 0);
        vaquita_stats stats = stats_of(session);
        CHECK(stats.tokens == said[0].tokens && stats.accepted_tokens <= stats.drafted_tokens);
        CHECK(i == 0 ? stats.drafted_tokens == 0 : stats.drafted_tokens > 0);
        OK(vaquita_session_close(session));
        OK(vaquita_model_close(model));
    }
}

/* A conversation that begins like one before the app was restarted goes on from what was kept. */
static void kept_prompts(const char *folder) {
    static const char *system = "You are a patient teacher who explains each step of a calculation in short sentences, "
                                "names the digits that are carried, and ends with the result alone in its own line.";
    char kept[1024];
    snprintf(kept, sizeof kept, "%s/prompts-%ld", folder, (long)getpid()); /* not what another run has kept */
    said_t said[3] = {{0}};
    size_t cached[3];
    for (int i = 0; i < 3; i++) {
        vaquita_model_options options;
        OK(vaquita_model_options_init(&options, sizeof options));
        options.context = 512;
        options.threads = threads;
        options.prompt_folder = i == 2 ? NULL : kept;
        options.prompt_bytes = 64 << 20;
        vaquita_model *model = NULL;
        OK(vaquita_model_open(path, &options, &model));
        vaquita_session *session = create(model);
        OK(vaquita_session_set_system(session, system));
        ask(session, "723 * 8 = ?", &said[i]);
        cached[i] = stats_of(session).cached_tokens;
        OK(vaquita_session_close(session));
        OK(vaquita_model_close(model));
        CHECK(strcmp(said[i].answer, said[0].answer) == 0 && strcmp(said[i].reasoning, said[0].reasoning) == 0);
    }
    CHECK(cached[0] == 0 && cached[1] > 32 && cached[2] == 0);
    /* A file is no folder. */
    vaquita_model_options options;
    vaquita_model *model = NULL;
    OK(vaquita_model_options_init(&options, sizeof options));
    options.prompt_folder = path;
    FAILS(vaquita_model_open(path, &options, &model), VAQUITA_ERROR_IO, "prompts cannot be kept there");
    CHECK(model == NULL);
}

static void bad_arguments(vaquita_model *model) {
    vaquita_model *other = NULL;
    vaquita_session *session = create(model);
    said_t said = {0};
    vaquita_stats stats = {.struct_size = sizeof stats};
    FAILS(vaquita_model_open(NULL, NULL, &other), VAQUITA_ERROR_ARGUMENT, "path is null");
    FAILS(vaquita_model_open(path, NULL, NULL), VAQUITA_ERROR_ARGUMENT, "model is null");
    FAILS(vaquita_model_open("\xff\xfe", NULL, &other), VAQUITA_ERROR_ARGUMENT, "not UTF-8");
    FAILS(vaquita_model_open("/no/such/model.gguf", NULL, &other), VAQUITA_ERROR_NOT_FOUND, "/no/such/model.gguf");
    FAILS(vaquita_model_open(__FILE__, NULL, &other), VAQUITA_ERROR_BAD_FILE, "not a GGUF file");
    vaquita_model_options options;
    OK(vaquita_model_options_init(&options, sizeof options));
    options.memory = "lots";
    FAILS(vaquita_model_open(path, &options, &other), VAQUITA_ERROR_ARGUMENT, "lots");
    options.memory = NULL;
    options.cache = "q3";
    FAILS(vaquita_model_open(path, &options, &other), VAQUITA_ERROR_ARGUMENT, "allowed: f32, f16, q8");
    options.cache = NULL;
    options.drafts = "lookup:99";
    FAILS(vaquita_model_open(path, &options, &other), VAQUITA_ERROR_ARGUMENT, "lookup:DEPTH");
    options.drafts = NULL;
    options.prompt_folder = "\xff";
    FAILS(vaquita_model_open(path, &options, &other), VAQUITA_ERROR_ARGUMENT, "prompt_folder is not UTF-8");
    options.prompt_folder = NULL;
    options.context = 1 << 30;
    FAILS(vaquita_model_open(path, &options, &other), VAQUITA_ERROR_ARGUMENT, "takes up to");
    options.struct_size = sizeof options + 8;
    FAILS(vaquita_model_open(path, &options, &other), VAQUITA_ERROR_ARGUMENT, "struct_size");
    FAILS(vaquita_model_options_init(NULL, sizeof options), VAQUITA_ERROR_ARGUMENT, "null");
    CHECK(other == NULL);

    FAILS(vaquita_session_create(NULL, &session), VAQUITA_ERROR_ARGUMENT, "model is null");
    FAILS(vaquita_session_create(model, NULL), VAQUITA_ERROR_ARGUMENT, "session is null");
    FAILS(vaquita_session_cancel(NULL), VAQUITA_ERROR_ARGUMENT, "session is null");
    FAILS(vaquita_session_stats(session, &stats), VAQUITA_ERROR_ARGUMENT, "not answered yet");
    FAILS(vaquita_session_set_system(session, "\xc3"), VAQUITA_ERROR_ARGUMENT, "system is not UTF-8");
    FAILS(vaquita_session_add_message(session, "pirate", "arr"), VAQUITA_ERROR_ARGUMENT, "pirate");
    FAILS(vaquita_session_generate(session, "a", NULL, NULL, NULL), VAQUITA_ERROR_ARGUMENT, "on_event is null");
    FAILS(vaquita_session_generate(session, "\x80", NULL, on_event, &said), VAQUITA_ERROR_ARGUMENT, "user is not UTF-8");
    FAILS(vaquita_session_generate(session, NULL, NULL, on_event, &said), VAQUITA_ERROR_ARGUMENT, "nothing to answer");
    vaquita_generate_options sampling;
    OK(vaquita_generate_options_init(&sampling, sizeof sampling));
    sampling.temperature = -1;
    FAILS(vaquita_session_generate(session, "a", &sampling, on_event, &said), VAQUITA_ERROR_ARGUMENT, "temperature");
    sampling.temperature = 0;
    sampling.stop_count = 1;
    FAILS(vaquita_session_generate(session, "a", &sampling, on_event, &said), VAQUITA_ERROR_ARGUMENT, "stop_count");
    const char *stop[] = {"8"}; /* which the thoughts have, too */
    sampling.stop = stop;
    OK(vaquita_session_generate(session, "723 * 8 = ?", &sampling, on_event, &said));
    CHECK(stats_of(session).stop == VAQUITA_STOP_TEXT && strncmp(said.reasoning, "3*8=24, ", 8) == 0);
    CHECK(strcmp(said.answer, "57") == 0);
    static char longer[20000];
    memset(longer, 'a', sizeof longer - 1);
    FAILS(vaquita_session_generate(session, longer, NULL, on_event, &said), VAQUITA_ERROR_CONTEXT_FULL, "context");
    FAILS(vaquita_model_trim(model, 7), VAQUITA_ERROR_ARGUMENT, "VAQUITA_TRIM");
    FAILS(vaquita_model_thermal_hint(model, -1, NULL), VAQUITA_ERROR_ARGUMENT, "VAQUITA_THERMAL");
    OK(vaquita_session_close(session));
    OK(vaquita_session_close(NULL));
    OK(vaquita_model_close(NULL));
}

/* A program that was compiled with a header whose structs were shorter. */
static void older_headers(vaquita_model *model) {
    struct { size_t struct_size; int32_t stop; int32_t guard; } old = {sizeof(size_t) + sizeof(int32_t), -1, 42};
    vaquita_session *session = create(model);
    said_t said = {0};
    ask(session, "723 * 8 = ?", &said);
    OK(vaquita_session_stats(session, (vaquita_stats *)&old));
    CHECK(old.stop == VAQUITA_STOP_END && old.guard == 42);
    OK(vaquita_session_close(session));
    /* What the shorter struct does not have is not read, whatever lies behind it. */
    vaquita_model_options options;
    memset(&options, 0xff, sizeof options);
    OK(vaquita_model_options_init(&options, offsetof(vaquita_model_options, drafts)));
    options.context = 512;
    vaquita_model *other = NULL;
    OK(vaquita_model_open(path, &options, &other));
    OK(vaquita_model_close(other));
}

static long resident_kib(void) {
    long pages = -1;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*s %ld", &pages) != 1) pages = -1;
    if (file != NULL) fclose(file);
    return pages * 4;
}

static void open_and_close(long cycles) {
    long before = 0;
    for (long i = 0; i < cycles; i++) {
        vaquita_model *model = open_with(NULL, 1);
        vaquita_session *session = create(model);
        OK(vaquita_session_close(session));
        OK(vaquita_model_close(model));
        if (i == cycles / 10) before = resident_kib();
    }
    long grown = resident_kib() - before;
    /* A model's parsed tokenizer alone takes more than 1 KiB per cycle. */
    if (cycles >= 1000) CHECK(before > 0 && grown < cycles);
}

int main(int count, char **arguments) {
    CHECK(count == 5 && vaquita_abi_version() == VAQUITA_ABI_VERSION && strlen(vaquita_version()) > 0);
    path = arguments[1];
    threads = strtoul(arguments[4], NULL, 10);
    vaquita_model *model = open_with(NULL, 1);
#define RUN(...) (puts(#__VA_ARGS__), fflush(stdout), __VA_ARGS__)
    RUN(streaming(model));
    RUN(many_turns(model));
    RUN(system_prompt_and_tools(model));
    RUN(parsed_calls(model));
    RUN(cancelling(model));
    RUN(save_and_restore(model, arguments[2]));
    RUN(two_sessions(model));
    RUN(own_meter(model));
    RUN(bad_arguments(model));
    RUN(older_headers(model));
    OK(vaquita_model_close(model));
    RUN(memory_and_heat());
    RUN(small_caches());
    RUN(drafts());
    RUN(kept_prompts(arguments[2]));
    RUN(open_and_close(strtol(arguments[3], NULL, 10)));
    puts("all checks passed");
    return 0;
}
