// The box for the next question, and the files that go with it.

const FILE_LIMIT = 2_000_000;

// On a phone, Enter makes a new line: there is a button to send with.
const hasKeyboard = matchMedia('(hover: hover) and (pointer: fine)');

// Whether a key press sends. Keys that choose a Chinese or Japanese word belong to the input method.
function sends(event) {
  if (event.key !== 'Enter' || event.isComposing || event.keyCode === 229) return false;
  if (event.ctrlKey || event.metaKey) return true;
  return hasKeyboard.matches && !event.shiftKey && !event.altKey;
}

function grow(box) {
  box.style.height = 'auto';
  box.style.height = `${box.scrollHeight + 2}px`;
}

class Composer {
  constructor({ send, stop }) {
    this.form = byId('composer');
    this.box = byId('box');
    this.attachments = [];
    this.form.onsubmit = event => {
      event.preventDefault();
      const text = this.box.value.trim();
      if ((!text && this.attachments.length === 0) || this.busy) return;
      const attachments = this.attachments;
      this.fill('', []);
      send(text, attachments);
    };
    this.box.addEventListener('keydown', event => {
      if (!sends(event)) return;
      event.preventDefault();
      this.form.requestSubmit();
    });
    this.box.addEventListener('input', () => this.changed());
    byId('stop').onclick = () => {
      stop();
      this.box.focus();
    };
    byId('attach').onclick = () => byId('files').click();
    byId('files').onchange = event => {
      this.attach([...event.target.files]);
      event.target.value = '';
    };
    this.form.addEventListener('paste', event => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length === 0) return;
      event.preventDefault();
      this.attach(files);
    });
    const main = document.querySelector('main');
    main.addEventListener('dragover', event => event.preventDefault());
    main.addEventListener('drop', event => {
      event.preventDefault();
      this.attach([...event.dataTransfer.files]);
    });
    const select = byId('thinking');
    select.value = settings.values.thinking;
    select.onchange = () => settings.change({ thinking: select.value });
  }

  fill(text, attachments) {
    this.box.value = text;
    this.attachments = attachments;
    this.drawAttachments();
    this.changed();
  }

  changed() {
    // An empty box has no letter to take its direction from: its hint is in the page's language.
    this.box.dir = this.box.value ? 'auto' : document.documentElement.dir;
    grow(this.box);
    byId('send').disabled = !this.box.value.trim() && this.attachments.length === 0;
  }

  // While an answer is written, the button that sends is the one that stops.
  setBusy(busy) {
    const hadFocus = document.activeElement === byId('stop') || document.activeElement === byId('send');
    this.busy = busy;
    byId('stop').hidden = !busy;
    byId('send').hidden = busy;
    if (hadFocus) (busy ? byId('stop') : this.box).focus();
  }

  async attach(files) {
    for (const file of files) {
      const text = await readText(file);
      if (text === null) {
        notice(say('not_text', { name: file.name }));
        continue;
      }
      const attachment = { name: file.name, text, tokens: null };
      this.attachments.push(attachment);
      this.drawAttachments();
      this.changed();
      api.countTokens(text).then(
        count => {
          attachment.tokens = count;
          this.drawAttachments();
        },
        () => {}, // A server without that route: the count stays unknown.
      );
    }
    this.box.focus();
  }

  drawAttachments() {
    const items = this.attachments.map(attachment =>
      h(
        'li',
        {},
        icon('file'),
        h('bdi', {}, attachment.name),
        h('small', {}, tokenCount(attachment.tokens) || bytes(attachment.text.length)),
        iconButton('close', say('remove', { name: attachment.name }), () => {
          this.attachments = this.attachments.filter(other => other !== attachment);
          this.drawAttachments();
          this.changed();
          this.box.focus();
        }),
      ),
    );
    byId('attached').replaceChildren(...items);
    byId('attached').hidden = items.length === 0;
  }
}

// The text of a file, or null where it is something else or too long.
async function readText(file) {
  if (file.size > FILE_LIMIT) return null;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
    return text.includes('\0') ? null : text.replace(/\r\n?/g, '\n');
  } catch {
    return null;
  }
}
