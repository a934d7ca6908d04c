// The page: which conversation is open, and what the user does to it.

const opened = { conversation: null, messages: new Map() };

// Times of creation order messages: no two are equal.
let lastTime = 0;
const nextTime = () => (lastTime = Math.max(Date.now(), lastTime + 1));

const actions = {
  current: () => opened.conversation?.id,
  siblings: message => siblings(opened.messages, message),

  start() {
    opened.conversation = null;
    opened.messages = new Map();
    transcript.clear();
    draw();
    composer.box.focus();
  },

  async open(id) {
    const conversation = await database.conversation(id);
    if (!conversation) return actions.start();
    const messages = (await database.messages(id)).map(live);
    opened.conversation = conversation;
    opened.messages = new Map(messages.map(message => [message.id, message]));
    transcript.clear();
    draw();
    transcript.end();
    for (const message of messages) if (running(message) && !runs.has(message.id)) goOn(message);
  },

  send(content, attachments) {
    if (!opened.conversation) {
      const title = (content || attachments[0].name).split('\n')[0].slice(0, 80);
      const time = nextTime();
      opened.conversation = { id: newId(), title, created: time, updated: time, leaf: null };
    }
    ask(opened.conversation.leaf, content, attachments);
  },

  // Asks otherwise: a sibling of the question, with its own answer.
  edit(question, content) {
    ask(question.parent, content, question.attachments ?? []);
  },

  // Another answer to the same question.
  again(message) {
    answer(message.parent);
  },

  async choose(message, direction) {
    opened.conversation.leaf = newestLeaf(opened.messages, message);
    draw();
    // The keyboard goes on where it was.
    const footer = transcript.viewOf(message)?.footer;
    const buttons = [...(footer?.querySelectorAll('[data-branch]') ?? [])].filter(button => !button.disabled);
    (buttons.find(button => button.dataset.branch === direction) ?? buttons[0])?.focus();
    await database.saveConversation(opened.conversation);
  },

  answerNow(message) {
    api.answerNow(message.completion).catch(error => notice(error.message));
  },

  async rename(id, title) {
    const conversation = id === opened.conversation?.id ? opened.conversation : await database.conversation(id);
    conversation.title = title;
    await database.saveConversation(conversation);
    emit('history');
    drawTitle();
  },

  async remove(id) {
    const whole = await exported(id);
    deleted.add(id);
    for (const { message } of runs.values()) if (message.conversation === id) stop(message);
    await database.remove(id);
    if (id === opened.conversation?.id) actions.start();
    emit('history');
    const undo = async () => {
      deleted.delete(id);
      const { messages, ...head } = whole;
      await database.saveMessages(...messages);
      await database.saveConversation(head);
      emit('history');
      actions.open(id);
    };
    notice(say('deleted', { title: whole.title }), { name: say('undo'), run: undo });
  },
};

function ask(parent, content, attachments) {
  const { id } = opened.conversation;
  const question = { id: newId(), conversation: id, parent, role: 'user', created: nextTime(), content };
  if (attachments.length > 0) question.attachments = attachments;
  opened.messages.set(question.id, question);
  keep(question);
  answer(question.id);
}

// Starts an answer to the question `parent`. What is stored follows; nothing waits for it.
function answer(parent) {
  const { conversation, messages } = opened;
  const message = {
    id: newId(),
    conversation: conversation.id,
    parent,
    role: 'assistant',
    created: nextTime(),
    content: '',
    reasoning: '',
    state: 'waiting',
  };
  if (settings.values.schema.trim()) message.json = true;
  messages.set(message.id, message);
  conversation.leaf = message.id;
  conversation.updated = nextTime();
  draw();
  transcript.end();
  hearOut(message);
  keep(message);
  database.saveConversation(conversation).then(
    () => emit('history'),
    () => {},
  );
  generate(message, path(messages, parent));
}

// The answer that is read out is the one that was asked for.
let heard = null;
function hearOut(message) {
  heard = { message, speaker: new Speaker(), saidThinking: false };
}
on('message', message => {
  if (heard?.message !== message) return;
  if (thinking(message) && !heard.saidThinking) {
    heard.saidThinking = true;
    speak(say('thinking_now'));
  }
  const ended = !running(message);
  heard.speaker.hear(message.content, ended);
  if (!ended) return;
  if (message.state === 'done') speak(say('answer_ends'));
  heard = null;
});

// Answers of the open branch that are being written.
function writing() {
  const shown = opened.conversation ? path(opened.messages, opened.conversation.leaf) : [];
  return shown.filter(message => runs.has(message.id));
}

function draw() {
  const branch = opened.conversation ? path(opened.messages, opened.conversation.leaf) : [];
  transcript.show(branch);
  document.body.classList.toggle('empty', branch.length === 0);
  byId('greeting').hidden = branch.length > 0;
  byId('transcript').hidden = branch.length === 0;
  composer.setBusy(writing().length > 0);
  drawTitle();
  panel.mark();
  const address = opened.conversation ? `#${opened.conversation.id}` : location.pathname + location.search;
  history.replaceState(null, '', address);
}

function drawTitle() {
  const title = opened.conversation?.title ?? 'vaquita';
  byId('title').textContent = title;
  document.title = title === 'vaquita' ? title : `${title} · vaquita`;
}

function drawServer() {
  byId('model').textContent = server.ready ? server.model : (server.trouble ?? '');
  byId('model').classList.toggle('trouble', !server.ready);
  document.querySelector('label.pill').hidden = !server.thinks;
}

function applySettings() {
  applyLanguage();
  applyTheme();
  drawServer();
}

// A keyboard on the screen makes the visible part smaller than the window in some browsers.
function fitWindow() {
  const { height = innerHeight, offsetTop = 0, scale = 1 } = window.visualViewport ?? {};
  if (scale !== 1) return;
  document.documentElement.style.setProperty('--height', `${height}px`);
  document.documentElement.style.setProperty('--top', `${offsetTop}px`);
}

// On a secure page, the browser may keep the document for when the server is off.
function keepOffline() {
  if (!('serviceWorker' in navigator)) return;
  const address = 'service-worker.js';
  const policy = window.trustedTypes?.createPolicy('vaquita', {
    createScriptURL: asked => {
      if (asked !== address) throw new TypeError('the page has one worker');
      return asked;
    },
  });
  navigator.serviceWorker.register(policy ? policy.createScriptURL(address) : address).catch(() => {});
}

settings.load();
key.load();
for (const place of document.querySelectorAll('[data-icon]')) place.append(icon(place.dataset.icon));
applySettings();
const transcript = new Transcript(actions);
const composer = new Composer({ send: actions.send, stop: () => writing().forEach(stop) });
const panel = new History(actions);
composer.fill('', []);

on('settings', () => {
  const before = language;
  applySettings();
  if (language === before) return;
  transcript.redraw();
  composer.drawAttachments();
  composer.changed();
  emit('history');
});
on('running', () => composer.setBusy(writing().length > 0));
on('server', drawServer);
addEventListener('keydown', event => {
  if (event.key === 'Escape' && !event.defaultPrevented && !document.querySelector('dialog[open]'))
    writing().forEach(stop);
  if (event.key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    panel.open(true, false);
    byId('find').focus();
  }
});
document.querySelector('.skip').onclick = event => {
  event.preventDefault();
  composer.box.focus();
};
fitWindow();
window.visualViewport?.addEventListener('resize', fitWindow);
window.visualViewport?.addEventListener('scroll', fitWindow);
addEventListener('resize', fitWindow);
keepOffline();

database.open().then(async () => {
  if (!database.lasting) notice(say('not_lasting'));
  const asked = location.hash.slice(1);
  if (asked && (await database.conversation(asked))) await actions.open(asked);
  else actions.start();
  panel.draw();
});
meetServer();
