// What the events of a stream make of a message. Nothing here draws or requests.
//
// States: waiting (nothing of the answer yet), writing, done, stopped (by the user), cut (the stream broke off),
// failed (with `error`).

const running = message => message.state === 'waiting' || message.state === 'writing';

// Applies an event of the stream to `message`; `now` is in milliseconds.
function apply(message, event, now) {
  if (event.comment !== undefined) applyComment(message, event.comment);
  else if (event.data === '[DONE]') close(message, now);
  else applyChunk(message, JSON.parse(event.data), now);
}

// ": queued 3, about 40 s" is the place in the server's queue; other comments keep the connection.
function applyComment(message, comment) {
  const queued = /^queued (\d{1,6})(?:, about (\d{1,6}) s)?/.exec(comment);
  if (!queued) return;
  message.queue = { ahead: Number(queued[1]), seconds: queued[2] === undefined ? null : Number(queued[2]) };
}

function applyChunk(message, chunk, now) {
  if (chunk.error) {
    message.state = 'failed';
    message.error = String(chunk.error.message ?? chunk.error);
    stopThinking(message, now);
    return;
  }
  if (typeof chunk.id === 'string') message.completion = chunk.id;
  if (typeof chunk.model === 'string') message.model = chunk.model;
  if (chunk.prompt_progress) {
    message.queue = null;
    message.progress = chunk.prompt_progress;
  }
  if (chunk.usage) message.usage = chunk.usage;
  if (chunk.timings) message.timings = chunk.timings;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const { reasoning_content: thought, content } = choice.delta ?? {};
  if (thought) {
    began(message);
    message.thinkingSince ??= now;
    message.reasoning += thought;
  }
  if (content) {
    began(message);
    stopThinking(message, now);
    message.content += content;
  }
  if (choice.finish_reason) message.finish = choice.finish_reason;
}

function began(message) {
  message.state = 'writing';
  message.queue = null;
  message.progress = null;
}

function stopThinking(message, now) {
  if (message.thinkingSince === undefined || message.thought !== undefined) return;
  message.thought = (now - message.thinkingSince) / 1000;
}

function close(message, now, state = 'done') {
  stopThinking(message, now);
  message.queue = null;
  message.progress = null;
  if (running(message)) message.state = state;
}

function thinking(message) {
  return running(message) && message.thinkingSince !== undefined && message.thought === undefined;
}

// Seconds until the prompt is read, at the speed so far.
function promptSeconds({ total, cache, processed, time_ms }) {
  const read = processed - cache;
  return read > 0 && time_ms > 0 ? ((total - processed) * time_ms) / read / 1000 : null;
}
