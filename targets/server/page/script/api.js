// Requests to the server that sent this page, by relative addresses: they hold behind a proxy's path, too.

class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter; // seconds, or NaN
  }
}

const api = {
  async request(path, { body, headers = {}, ...rest } = {}) {
    const sent = { ...headers };
    if (key.value) sent.Authorization = `Bearer ${key.value}`;
    if (body !== undefined) sent['Content-Type'] = 'application/json';
    const response = await fetch(path, {
      method: body === undefined ? 'GET' : 'POST',
      ...rest,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      credentials: 'same-origin',
      redirect: 'error',
    });
    if (response.ok) return response;
    throw new Refused(
      response.status,
      await complaint(response),
      parseFloat(response.headers.get('Retry-After')),
    );
  },

  async json(path, options) {
    return (await this.request(path, options)).json();
  },

  // An answer, as a stream that can be resumed under `id`.
  answer(id, body, signal) {
    return this.request('v1/chat/completions', { body, signal, headers: { 'X-Conversation-Id': id } });
  },

  // The rest of an answer that a connection lost.
  resume(id, position, signal) {
    return this.request(`v1/stream?conv_id=${encodeURIComponent(id)}&from=${position}`, { signal });
  },

  // Ends an answer on the server. It may have ended already.
  stop(id) {
    return this.request(`v1/stream?conv_id=${encodeURIComponent(id)}`, { method: 'DELETE' }).catch(() => {});
  },

  // Lets the model stop thinking and answer.
  answerNow(completion) {
    return this.request('v1/chat/completions/control', { body: { id: completion, action: 'reasoning_end' } });
  },

  async countTokens(content) {
    return (await this.json('tokenize', { body: { content } })).tokens.length;
  },
};

async function complaint(response) {
  const text = await response.text().catch(() => '');
  try {
    return JSON.parse(text).error.message ?? text;
  } catch {
    return text.slice(0, 500) || response.statusText || String(response.status);
  }
}
