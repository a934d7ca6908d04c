// The list of conversations, dialogs and notices.

// A line above the conversation, until it is closed; `action` is { name, run }.
function notice(text, action) {
  const line = h('div.notice', { role: 'status' }, h('span', { dir: 'auto' }, text));
  if (action)
    line.append(
      h('button.small', { type: 'button', onclick: () => (line.remove(), action.run()) }, action.name),
    );
  line.append(iconButton('close', say('close'), () => line.remove()));
  byId('notices').replaceChildren(line);
}

// Opens a dialog. `build` gets a function that closes it with a value, which is the promise's.
function dialog(title, build) {
  return new Promise(resolve => {
    const focused = document.activeElement;
    const heading = h('h2', { id: 'dialog-title' }, title);
    const element = h('dialog', { 'aria-labelledby': 'dialog-title' });
    let value;
    const leave = given => {
      value = given;
      element.close();
    };
    const head = h(
      'header',
      {},
      heading,
      iconButton('close', say('close'), () => leave()),
    );
    element.append(head, ...build(leave));
    element.onclose = () => {
      element.remove();
      focused?.focus();
      resolve(value);
    };
    // A click beside the dialog.
    element.addEventListener('click', event => event.target === element && leave());
    byId('dialogs').append(element);
    element.showModal();
  });
}

function field(label, control, hint) {
  const id = `field-${control.name}`;
  control.id = id;
  if (hint) control.setAttribute('aria-describedby', `${id}-hint`);
  return h(
    'p.field',
    {},
    h('label', { htmlFor: id }, label),
    control,
    hint && h('small', { id: `${id}-hint` }, hint),
  );
}

const formButtons = (cancel, name) =>
  h(
    'div.row.end',
    {},
    h('button', { type: 'button', onclick: cancel }, say('cancel')),
    h('button.main', { type: 'submit' }, name),
  );

function askForKey() {
  askForKey.asked ??= dialog(say('key'), leave => {
    const input = h('input', {
      name: 'key',
      type: 'password',
      autocomplete: 'off',
      value: key.value,
      required: true,
    });
    const form = h(
      'form',
      {},
      field(say('key'), input, say('key_hint')),
      formButtons(() => leave(false), say('use_key')),
    );
    form.onsubmit = event => {
      event.preventDefault();
      key.change(input.value.trim());
      leave(true);
    };
    return [form];
  }).finally(() => (askForKey.asked = undefined));
  return askForKey.asked;
}

function choice(name, options, value) {
  const select = h('select', { name }, ...options.map(([value, label]) => h('option', { value }, label)));
  select.value = value;
  return select;
}

// An empty field means the server's own value, which is shown where it says so.
function numberInput(name, { min, max, step }) {
  const own = server.defaults[name];
  const placeholder = isNumber(own) ? number(own, 2) : say('as_model');
  return h('input', {
    name,
    type: 'number',
    inputMode: 'decimal',
    min,
    max,
    step,
    value: settings.values[name],
    placeholder,
  });
}

function openSettings() {
  return dialog(say('settings'), leave => {
    const { language: chosen, theme, system, schema } = settings.values;
    const languages = [['', say('automatic')], ...Object.entries(LANGUAGE_NAMES)];
    const themes = [
      ['', say('automatic')],
      ['light', say('light')],
      ['dark', say('dark')],
    ];
    const schemaBox = h('textarea', { name: 'schema', rows: 4, value: schema, dir: 'ltr', spellcheck: false });
    schemaBox.oninput = () => schemaBox.setCustomValidity(isSchema(schemaBox.value) ? '' : say('not_schema'));
    const form = h(
      'form',
      {},
      h(
        'div.columns',
        {},
        field(say('language'), choice('language', languages, chosen)),
        field(say('theme'), choice('theme', themes, theme)),
      ),
      field(
        say('system'),
        h('textarea', { name: 'system', rows: 3, value: system, dir: 'auto' }),
        say('system_hint'),
      ),
      h(
        'div.columns',
        {},
        field(
          say('temperature'),
          numberInput('temperature', { min: 0, max: 2, step: 'any' }),
          say('temperature_hint'),
        ),
        field(say('top_p'), numberInput('top_p', { min: 0, max: 1, step: 'any' }), say('top_p_hint')),
        field(say('max_tokens'), numberInput('max_tokens', { min: 1, step: 1 }), say('max_tokens_hint')),
        field(say('seed'), numberInput('seed', { min: 0, max: 2 ** 53 - 1, step: 1 }), say('seed_hint')),
      ),
      field(say('schema'), schemaBox, say('schema_hint')),
      field(
        say('key'),
        h('input', { name: 'key', type: 'password', autocomplete: 'off', value: key.value }),
        say('key_hint'),
      ),
      formButtons(() => leave(), say('save')),
    );
    form.onsubmit = event => {
      event.preventDefault();
      const { key: given, ...values } = Object.fromEntries(new FormData(form));
      if (given !== key.value) {
        key.change(given.trim());
        meetServer();
      }
      settings.change(values);
      leave();
    };
    return [form];
  });
}

function isSchema(text) {
  if (!text.trim()) return true;
  try {
    const value = JSON.parse(text);
    return isPlainObject(value) || typeof value === 'boolean';
  } catch {
    return false;
  }
}

// Import, and export of everything.
function openTransfer() {
  return dialog(say('import_export'), leave => {
    const input = h('input', { type: 'file', accept: '.json,.md,.markdown', hidden: true, id: 'import-file' });
    input.onchange = async () => {
      const [file] = input.files;
      leave();
      try {
        notice(say('imported', { n: await importFile(file.name, await file.text()) }));
      } catch (error) {
        notice(say('not_imported', { reason: error.message }));
      }
    };
    const exportAll = async () => {
      leave();
      const all = await database.conversations();
      download(
        'vaquita.json',
        'application/json',
        toJson(await Promise.all(all.map(({ id }) => exported(id)))),
      );
    };
    return [
      h('p', {}, say('history_hint')),
      h(
        'div.stack',
        {},
        input,
        h('button', { type: 'button', onclick: () => input.click() }, say('import')),
        h('button', { type: 'button', onclick: exportAll }, say('export_all')),
      ),
    ];
  });
}

// Name, export and deletion of one conversation.
function openConversationPanel(conversation, { remove, rename }) {
  return dialog(say('conversation'), leave => {
    const input = h('input', { name: 'title', value: conversation.title, dir: 'auto', required: true });
    const form = h(
      'form',
      {},
      field(say('title'), input),
      formButtons(() => leave(), say('rename')),
    );
    form.onsubmit = event => {
      event.preventDefault();
      if (input.value.trim()) rename(conversation.id, input.value.trim());
      leave();
    };
    const save = async format => {
      leave();
      const whole = await exported(conversation.id);
      if (format === 'json') download(fileName(whole.title, 'json'), 'application/json', toJson([whole]));
      else {
        const branch = path(new Map(whole.messages.map(message => [message.id, message])), whole.leaf);
        download(fileName(whole.title, 'md'), 'text/markdown', toMarkdown(whole, branch));
      }
    };
    const button = (name, onclick, kind = '') => h(`button${kind}`, { type: 'button', onclick }, name);
    return [
      form,
      h(
        'div.stack',
        {},
        button(say('export_json'), () => save('json')),
        button(say('export_markdown'), () => save('markdown')),
        button(say('delete'), () => (leave(), remove(conversation.id)), '.danger'),
      ),
    ];
  });
}

// The list beside the conversation.
class History {
  constructor(actions) {
    this.actions = actions;
    this.list = byId('conversations');
    this.find = byId('find');
    this.narrow = matchMedia('(max-width: 52rem)');
    this.find.oninput = whenQuiet(150, () => this.draw());
    byId('new').onclick = byId('new-too').onclick = () => {
      if (this.narrow.matches) this.open(false);
      actions.start();
    };
    byId('open-history').onclick = () => this.open(true);
    byId('close-history').onclick = byId('shade').onclick = () => this.open(false);
    byId('history').addEventListener('keydown', event => {
      if (event.key === 'Escape' && this.narrow.matches) this.open(false);
    });
    byId('open-settings').onclick = openSettings;
    byId('open-transfer').onclick = openTransfer;
    this.narrow.onchange = () => this.open(!this.narrow.matches, false);
    this.open(!this.narrow.matches, false);
    on('history', () => this.draw());
    on('running', () => this.mark());
  }

  open(open, focus = true) {
    document.body.classList.toggle('history-open', open);
    byId('history').inert = !open;
    document.querySelector('main').inert = open && this.narrow.matches;
    byId('open-history').setAttribute('aria-expanded', String(open));
    if (focus) byId(open ? 'close-history' : 'open-history').focus();
  }

  async draw() {
    const asked = this.find.value.trim();
    const found = asked ? await database.search(asked) : await database.conversations();
    if (asked !== this.find.value.trim()) return;
    const items = found.map(conversation => {
      const open = h(
        'button.plain.title',
        { type: 'button', dir: 'auto', onclick: () => this.choose(conversation.id) },
        conversation.title,
      );
      const more = iconButton('more', say('options', { title: conversation.title }), () =>
        openConversationPanel(conversation, this.actions),
      );
      const item = h('li', {}, open, more);
      item.dataset.id = conversation.id;
      return item;
    });
    this.list.replaceChildren(...items);
    byId('found').textContent = asked ? say('found', { n: found.length }) : '';
    this.mark();
  }

  choose(id) {
    if (this.narrow.matches) this.open(false);
    this.actions.open(id);
  }

  // The conversation that is open, and those whose answer is being written.
  mark() {
    const writing = new Set([...runs.values()].map(({ message }) => message.conversation));
    for (const item of this.list.children) {
      const { id } = item.dataset;
      item.classList.toggle('writing', writing.has(id));
      if (id === this.actions.current()) item.firstChild.setAttribute('aria-current', 'true');
      else item.firstChild.removeAttribute('aria-current');
    }
  }
}
