// Export and import. JSON carries everything; Markdown carries the branch that is shown, for people, and comes back
// as a conversation without branches.

const FORMAT = 'vaquita-conversations';
const FORMAT_VERSION = 1;
const STATES = ['waiting', 'writing', 'done', 'stopped', 'cut', 'failed'];

// Fields of a message that are kept, with their check.
const isText = value => typeof value === 'string';
const isNumber = value => Number.isFinite(value);
const isPlainObject = value => typeof value === 'object' && value !== null && !Array.isArray(value);
const MESSAGE_FIELDS = {
  id: isId,
  conversation: isId,
  parent: value => value === null || isId(value),
  role: value => value === 'user' || value === 'assistant',
  created: isNumber,
  content: isText,
  reasoning: isText,
  state: value => STATES.includes(value),
  error: isText,
  finish: isText,
  model: isText,
  usage: isPlainObject,
  timings: isPlainObject,
  thought: isNumber,
  thinkingSince: isNumber,
  json: value => value === true,
  attachments: value => Array.isArray(value) && value.every(isAttachment),
  completion: isText,
  received: isNumber,
};
const MESSAGE_REQUIRED = ['id', 'conversation', 'parent', 'role', 'created', 'content'];

function isId(value) {
  return isText(value) && /^[\w-]{1,64}$/.test(value);
}

function isAttachment(value) {
  return (
    isPlainObject(value) &&
    isText(value.name) &&
    isText(value.text) &&
    (value.tokens === null || isNumber(value.tokens))
  );
}

// What of a message is stored.
function record(message) {
  const kept = Object.keys(MESSAGE_FIELDS).filter(name => message[name] !== undefined);
  return Object.fromEntries(kept.map(name => [name, message[name]]));
}

function toJson(conversations) {
  return `${JSON.stringify({ format: FORMAT, version: FORMAT_VERSION, conversations }, null, 2)}\n`;
}

// Conversations of a file, or an error that says what is wrong with it.
function fromJson(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error(say('import_not_json'));
  }
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) throw new Error(say('import_not_ours'));
  if (file.version !== FORMAT_VERSION)
    throw new Error(say('import_version', { version: String(file.version) }));
  return file.conversations.map(checkedConversation);
}

function checkedConversation(found) {
  const damaged = () => new Error(say('import_damaged'));
  if (!isPlainObject(found) || !isId(found.id) || !isText(found.title) || !isNumber(found.created))
    throw damaged();
  if (!isNumber(found.updated) || !Array.isArray(found.messages)) throw damaged();
  const messages = found.messages.map(message => {
    if (!isPlainObject(message) || message.conversation !== found.id) throw damaged();
    for (const [name, check] of Object.entries(MESSAGE_FIELDS)) {
      const required = MESSAGE_REQUIRED.includes(name);
      if ((message[name] !== undefined || required) && !check(message[name])) throw damaged();
    }
    const kept = record(message);
    if (kept.role === 'assistant') {
      kept.reasoning ??= '';
      kept.state ??= 'done';
    }
    return kept;
  });
  // Parents come from the file and are older: then no message is above itself.
  const known = new Map(messages.map(message => [message.id, message]));
  if (known.size !== messages.length) throw damaged();
  for (const { parent, created } of messages) {
    if (parent !== null && !(known.get(parent)?.created < created)) throw damaged();
  }
  if (found.leaf !== null && !known.has(found.leaf)) throw damaged();
  const { id, title, created, updated, leaf } = found;
  return { id, title, created, updated, leaf, messages };
}

// The same conversation under other names.
function renamed(conversation) {
  const names = new Map(conversation.messages.map(({ id }) => [id, newId()]));
  const id = newId();
  const messages = conversation.messages.map(message => ({
    ...message,
    id: names.get(message.id),
    conversation: id,
    parent: message.parent && names.get(message.parent),
  }));
  return { ...conversation, id, leaf: conversation.leaf && names.get(conversation.leaf), messages };
}

// A branch as a document. Comments mark the turns, with a word that the text does not contain.
function toMarkdown({ title }, branch) {
  const word = newId().slice(0, 8);
  const parts = [`<!-- vaquita ${word} -->\n# ${title}\n`];
  for (const { role, content, reasoning, attachments } of branch) {
    for (const { name, text } of attachments ?? []) {
      parts.push(`<!-- ${word} file ${JSON.stringify(name).replaceAll('>', '\\u003e')} -->\n${fenced(text)}\n`);
    }
    if (reasoning) parts.push(`<!-- ${word} reasoning -->\n${reasoning}\n`);
    parts.push(`<!-- ${word} ${role} -->\n${content}\n`);
  }
  return parts.join('\n');
}

function fenced(text) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}\n${text}\n${fence}`;
}

function fromMarkdown(text) {
  const normal = text.replace(/\r\n?/g, '\n');
  const head = /^<!-- vaquita ([0-9a-f]{8}) -->\n# (.*)\n/.exec(normal);
  if (!head) throw new Error(say('import_not_ours'));
  const [start, word, title] = head;
  const marks = new RegExp(`\n<!-- ${word} (user|assistant|reasoning|file (".*")) -->\n`);
  const parts = normal.slice(start.length).split(marks);
  const id = newId();
  const now = Date.now();
  const messages = [];
  let held = {};
  for (let i = 1; i + 2 < parts.length; i += 3) {
    const [kind, name, content] = [parts[i], parts[i + 1], parts[i + 2].replace(/\n$/, '')];
    if (kind === 'reasoning') held.reasoning = content;
    else if (name !== undefined) {
      const file = { name: JSON.parse(name), text: content.replace(/^`+\n([^]*)\n`+$/, '$1'), tokens: null };
      held.attachments = [...(held.attachments ?? []), file];
    } else {
      const parent = messages.at(-1)?.id ?? null;
      const message = {
        id: newId(),
        conversation: id,
        parent,
        role: kind,
        created: now + messages.length,
        content,
        ...held,
      };
      if (kind === 'assistant') Object.assign(message, { reasoning: held.reasoning ?? '', state: 'done' });
      messages.push(record(message));
      held = {};
    }
  }
  const leaf = messages.at(-1)?.id ?? null;
  return { id, title, created: now, updated: now, leaf, messages };
}

// Adds conversations of a file. One that is here already stays as it is; one that differs comes beside it.
async function importFile(name, text) {
  const conversations = /\.(?:md|markdown)$/i.test(name) ? [fromMarkdown(text)] : fromJson(text);
  let count = 0;
  for (let conversation of conversations) {
    const here = await exported(conversation.id);
    if (here && JSON.stringify(here) === JSON.stringify(conversation)) continue;
    if (here) conversation = renamed(conversation);
    const { messages, ...head } = conversation;
    await database.saveMessages(...messages);
    await database.saveConversation(head);
    count += 1;
  }
  emit('history');
  return count;
}

// A conversation with its messages, or undefined.
async function exported(id) {
  const head = await database.conversation(id);
  if (!head) return undefined;
  const { title, created, updated, leaf } = head;
  return { id, title, created, updated, leaf, messages: (await database.messages(id)).map(record) };
}

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = h('a', { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function fileName(title, end) {
  const kept = title
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 60);
  return `${kept || 'vaquita'}.${end}`;
}
