// Answers that are being written. One goes on when another conversation is opened, when the connection breaks, and when
// the page is loaded again: the server keeps the stream under the message's id.

// Times that a lost connection is tried again before the answer counts as cut.
const RETRIES = 8;

// Message id to { message, controller }.
const runs = new Map();

// What the server says of itself.
const server = { model: '', context: 0, defaults: {}, thinks: true, ready: false };

function requestBody(history) {
  const { system, temperature, top_p, max_tokens, seed, schema, thinking } = settings.values;
  const messages = history.map(asSent);
  if (system.trim()) messages.unshift({ role: 'system', content: system });
  const body = {
    model: server.model || 'default',
    messages,
    stream: true,
    stream_options: { include_usage: true },
    return_progress: true,
    timings_per_token: true,
  };
  for (const [name, value] of Object.entries({ temperature, top_p, max_tokens, seed })) {
    if (value !== '') body[name] = Number(value);
  }
  if (schema.trim()) {
    body.response_format = {
      type: 'json_schema',
      json_schema: { name: 'answer', strict: true, schema: JSON.parse(schema) },
    };
  }
  if (thinking === 'off') body.thinking = { type: 'disabled' };
  else if (thinking === 'on') body.thinking = { type: 'enabled' };
  else if (thinking !== 'auto') body.reasoning_effort = thinking;
  return body;
}

function asSent({ role, content, reasoning, attachments = [] }) {
  if (role === 'assistant')
    return reasoning ? { role, content, reasoning_content: reasoning } : { role, content };
  const files = attachments.map(({ name, text }) => `${name}:\n${fenced(text)}`);
  return { role, content: [...files, content].join('\n\n') };
}

// Asks for the answer `message` to `history`.
function generate(message, history) {
  const body = requestBody(history);
  return run(message, signal => api.answer(message.id, body, signal), false);
}

// Goes on with an answer that was being written when the page was closed.
function goOn(message) {
  return run(message, signal => api.resume(message.id, message.received ?? 0, signal), true);
}

// Follows the stream that `open` requests to its end. Once the server has `accepted` the request, a connection that is
// lost is made again.
async function run(message, open, accepted) {
  const controller = new AbortController();
  runs.set(message.id, { message, controller });
  emit('running');
  emit('message', message);
  const { signal } = controller;
  let failures = 0;
  while (running(message)) {
    try {
      const response = await open(signal);
      accepted = true;
      failures = 0;
      await follow(message, response);
    } catch (error) {
      if (signal.aborted) break;
      if (error instanceof Refused && accepted && [404, 405, 501].includes(error.status))
        close(message, Date.now(), 'cut');
      else if (error instanceof Refused || !accepted) refuse(message, error);
      else if (++failures > RETRIES) close(message, Date.now(), 'cut');
      else await pause(Math.min(8000, 250 * 2 ** failures));
    }
    open = signal => api.resume(message.id, message.received ?? 0, signal);
  }
  runs.delete(message.id);
  await keep(message);
  emit('message', message);
  emit('running');
}

// Applies the events of `response` until it ends. An end that nothing announced is an error.
async function follow(message, response) {
  const events = new EventReader(message.received ?? 0);
  const reader = response.body.getReader();
  message.received = events.position;
  for (;;) {
    const { done, value } = await reader.read();
    if (!running(message)) return reader.cancel();
    if (done) break;
    for (const event of events.read(value)) {
      apply(message, event, Date.now());
      message.received = event.position;
      if (!running(message)) break;
    }
    message.received = events.position;
    emit('message', message);
    keepSoon();
    if (!running(message)) return reader.cancel();
  }
  if (!message.finish) throw new TypeError('the stream ended early');
  close(message, Date.now());
}

function refuse(message, error) {
  message.state = 'failed';
  message.queue = null;
  message.progress = null;
  if (!(error instanceof Refused)) {
    message.error = say('unreachable');
    meetServer();
  } else if (error.status === 401) message.error = say('key_needed');
  else if (error.retryAfter > 0) message.error = say('busy', { time: duration(error.retryAfter) });
  else message.error = error.message;
  if (error.status === 401) askForKey();
}

function stop(message) {
  const running = runs.get(message.id);
  if (!running) return;
  close(message, Date.now(), 'stopped');
  running.controller.abort();
  api.stop(message.id);
}

// Waits, but no longer than until the browser says that there is a connection again.
function pause(ms) {
  return new Promise(resolve => {
    const go = () => {
      clearTimeout(timer);
      removeEventListener('online', go);
      document.removeEventListener('visibilitychange', go);
      resolve();
    };
    const timer = setTimeout(go, ms);
    addEventListener('online', go);
    document.addEventListener('visibilitychange', go);
  });
}

// A message that was loaded, or the same one as it is being written.
const live = message => runs.get(message.id)?.message ?? message;

// Conversations that were deleted while one of their answers was being written.
const deleted = new Set();

async function keep(...messages) {
  const kept = messages.filter(message => !deleted.has(message.conversation));
  try {
    await database.saveMessages(...kept.map(record));
  } catch (error) {
    notice(say('not_saved', { reason: error?.message ?? '' }));
  }
}

// Keeps what is being written about once a second.
let kept = false;
function keepSoon() {
  if (kept) return;
  kept = true;
  setTimeout(() => {
    kept = false;
    keepRunning();
  }, 1000);
}

function keepRunning() {
  const messages = [...runs.values()].map(({ message }) => message);
  if (messages.length > 0) keep(...messages);
}

addEventListener('pagehide', keepRunning);
document.addEventListener('visibilitychange', () => document.hidden && keepRunning());

// Asks what is served, until the server has loaded it.
let meeting = null;
function meetServer() {
  meeting ??= meet().finally(() => (meeting = null));
  return meeting;
}

async function meet() {
  for (let wait = 500; ; wait = Math.min(5000, wait * 1.5)) {
    try {
      const models = await api.json('v1/models');
      const props = await api.json('props').catch(() => ({}));
      server.model = String(models.data?.[0]?.id ?? '');
      server.context = Number(props.default_generation_settings?.n_ctx ?? props.n_ctx ?? 0);
      server.defaults = props.default_generation_settings?.params ?? {};
      server.thinks = props.thinking !== false;
      server.ready = true;
      emit('server');
      return;
    } catch (error) {
      server.ready = false;
      server.trouble =
        error.status === 401
          ? say('key_needed')
          : error instanceof Refused
            ? say('loading')
            : say('unreachable');
      emit('server');
      if (error.status !== 401) await pause(wait);
      else if (!(await askForKey())) return;
    }
  }
}
