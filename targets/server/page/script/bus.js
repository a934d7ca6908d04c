// What happened, for whom it concerns:
//   settings           settings have changed
//   history            conversations were added, renamed or removed
//   message (message)  a message has changed
//   running            an answer has started or ended

const listeners = new Map();

function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, new Set());
  listeners.get(event).add(listener);
}

function emit(event, value) {
  for (const listener of listeners.get(event) ?? []) listener(value);
}
