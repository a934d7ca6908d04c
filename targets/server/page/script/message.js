// One message on the page. It is drawn when it comes near the window; until then, and after, its place is held by its
// plain text, which the browser can search and a screen reader can read.

class MessageView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.near = false;
    this.element = h(`article.message.${message.role}`);
    this.element.messageView = this;
    this.hold();
  }

  get isAnswer() {
    return this.message.role === 'assistant';
  }

  // The place of a message that is out of sight.
  hold() {
    const { content, role } = this.message;
    const height = this.height ?? 90 + Math.ceil(content.length / 75) * 28;
    const place = h('div.held', {}, content);
    place.style.height = `${height}px`;
    this.element.setAttribute('aria-label', role === 'user' ? say('you') : say('answer'));
    this.element.replaceChildren(place);
  }

  show(near) {
    if (near === this.near) return;
    // What has the focus, or is being edited, stays.
    if (!near && (this.editing || this.element.contains(document.activeElement))) return;
    if (!near) this.height = this.element.offsetHeight;
    this.near = near;
    if (near) this.draw();
    else this.hold();
  }

  draw() {
    if (this.isAnswer) this.drawAnswer();
    else this.drawQuestion();
    this.update();
  }

  drawQuestion() {
    const { content, attachments = [] } = this.message;
    const files = attachments.map(({ name, text, tokens }) =>
      h(
        'details.file',
        {},
        h('summary', {}, icon('file'), h('bdi', {}, name), h('small', {}, tokenCount(tokens))),
        h('pre', { dir: 'auto', tabIndex: 0, role: 'group', 'aria-label': name }, text),
      ),
    );
    this.footer = h('footer');
    this.element.replaceChildren(
      h('h2.hidden', {}, say('you')),
      ...files,
      h('div.question', { dir: 'auto' }, content),
      this.footer,
    );
  }

  drawAnswer() {
    const thoughts = h('div.prose');
    this.seconds = h('span');
    this.glimpse = h('span.glimpse', { dir: 'auto', 'aria-hidden': 'true' });
    this.reasoning = h(
      'details.reasoning',
      { hidden: true },
      h('summary', {}, icon('thought'), this.seconds, this.glimpse),
      thoughts,
    );
    this.reasoning.open = this.message.unfolded ?? false;
    this.reasoning.ontoggle = () => {
      this.message.unfolded = this.reasoning.open;
      this.update();
    };
    this.now = h(
      'button.small',
      { type: 'button', hidden: true, onclick: () => this.actions.answerNow(this.message) },
      say('answer_now'),
    );
    this.status = h('div.status', { hidden: true });
    const answer = h('div.prose.answer');
    this.failure = h('div.failure', { hidden: true, role: 'alert' });
    this.footer = h('footer');
    this.thoughts = new Prose(thoughts);
    this.answer = new Prose(answer);
    this.element.replaceChildren(
      h('h2.hidden', {}, say('answer')),
      this.reasoning,
      this.now,
      this.status,
      answer,
      this.failure,
      this.footer,
    );
  }

  // Brings what is drawn up to date.
  update() {
    if (!this.near) return;
    if (this.isAnswer) this.updateAnswer();
    this.updateFooter();
  }

  updateAnswer() {
    const { message } = this;
    const ended = !running(message);
    this.element.setAttribute('aria-busy', String(!ended));
    this.reasoning.hidden = !message.reasoning;
    if (message.reasoning) {
      this.updateSeconds();
      this.glimpse.textContent = thinking(message) && !this.reasoning.open ? lastLine(message.reasoning) : '';
      if (this.reasoning.open) this.thoughts.show(message.reasoning, message.thought !== undefined);
    }
    this.now.hidden = !(thinking(message) && message.completion);
    this.updateStatus();
    if (message.json && message.content) {
      this.answer.element.replaceChildren(codeBlock(message.content, 'json'));
    } else {
      this.answer.show(message.content, ended);
    }
    this.updateFailure();
  }

  updateSeconds() {
    const { message } = this;
    if (thinking(message)) {
      this.seconds.textContent = say('thinks_for', {
        time: duration((Date.now() - message.thinkingSince) / 1000),
      });
    } else if (message.thought === undefined) this.seconds.textContent = say('thoughts');
    else this.seconds.textContent = say('thought_for', { time: duration(message.thought, 1) });
  }

  // Where the answer stands before its first word.
  updateStatus() {
    const { state, queue, progress } = this.message;
    this.status.hidden = state !== 'waiting';
    if (this.status.hidden) return;
    const parts = [];
    if (queue && queue.ahead > 0) {
      parts.push(h('span', {}, say('queued', { n: queue.ahead })));
      if (queue.seconds !== null)
        parts.push(h('span.muted', {}, say('about', { time: duration(queue.seconds) })));
    } else if (progress?.total > 0) {
      const { total, processed, cache } = progress;
      const left = promptSeconds(progress);
      const bar = h('progress', { max: total, value: processed, 'aria-label': say('reading') });
      parts.push(h('span', {}, say('reading_prompt', { n: processed, m: total })), bar);
      if (cache > 0) parts.push(h('span.muted', {}, say('from_cache', { n: cache })));
      if (left >= 2 && processed < total)
        parts.push(h('span.muted', {}, say('about', { time: duration(left) })));
    } else {
      parts.push(h('span.dots', {}, h('i'), h('i'), h('i')), h('span.hidden', {}, say('waiting')));
    }
    this.status.replaceChildren(...parts);
  }

  updateFailure() {
    const { state, error, finish } = this.message;
    const endings = { failed: error, cut: say('cut'), stopped: say('stopped') };
    const text = endings[state] ?? (finish === 'length' && state === 'done' ? say('ended_length') : '');
    this.failure.hidden = !text;
    const severe = state === 'failed' || state === 'cut';
    this.failure.className = severe ? 'failure' : 'failure mild';
    if (this.failure.firstChild?.textContent === text) return;
    this.failure.replaceChildren(h('span', {}, text));
    if (severe)
      this.failure.append(
        h('button.small', { type: 'button', onclick: () => this.actions.again(this.message) }, say('again')),
      );
  }

  updateFooter() {
    const { message, actions } = this;
    const alternatives = actions.siblings(message);
    const at = alternatives.indexOf(message);
    // Buttons keep the focus while an answer grows: they change when there is something to change.
    const state = [running(message), at, alternatives.length, language].join();
    if (this.footer.dataset.state !== state) {
      this.footer.dataset.state = state;
      const parts = [];
      if (alternatives.length > 1) parts.push(this.branches(alternatives, at));
      if (!running(message)) {
        parts.push(iconButton('copy', say('copy'), event => copyText(message.content, event.currentTarget)));
        if (this.isAnswer) parts.push(iconButton('again', say('again'), () => actions.again(message)));
        else parts.push(iconButton('edit', say('edit'), () => this.edit()));
      }
      if (this.isAnswer) parts.push(this.cost());
      this.footer.replaceChildren(...parts);
    }
    if (this.isAnswer) this.updateCost();
  }

  branches(alternatives, at) {
    const go = (direction, name, to) => {
      const button = iconButton(direction, name, () => this.actions.choose(alternatives[to], direction));
      button.disabled = to < 0 || to >= alternatives.length;
      button.dataset.branch = direction;
      return button;
    };
    const place = h('span', {}, say('n_of_m', { n: at + 1, m: alternatives.length }));
    return h(
      'span.branches',
      { role: 'group', 'aria-label': say('branches') },
      go('previous', say('previous'), at - 1),
      place,
      go('next', say('next'), at + 1),
    );
  }

  cost() {
    this.costLine = h('summary');
    this.costRows = h('dl');
    const details = h('details.cost', {}, this.costLine, this.costRows);
    details.open = this.costOpen ?? false;
    details.ontoggle = () => {
      this.costOpen = details.open;
      this.updateCost();
    };
    return details;
  }

  updateCost() {
    const line = summary(this.message);
    this.costLine.parentElement.hidden = !line;
    if (this.costLine.textContent !== line) this.costLine.textContent = line;
    if (!this.costOpen) return;
    this.costRows.replaceChildren(
      ...figures(this.message).flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]),
    );
  }

  // Turns the question into a box; sending it starts a branch.
  edit() {
    const box = h('textarea', {
      value: this.message.content,
      dir: 'auto',
      rows: 3,
      'aria-label': say('your_question'),
    });
    const leave = () => {
      this.editing = false;
      this.draw();
      this.footer.querySelector('button:last-of-type')?.focus();
    };
    const form = h(
      'form.editor',
      {
        onsubmit: event => {
          event.preventDefault();
          if (!box.value.trim()) return;
          this.editing = false;
          this.actions.edit(this.message, box.value);
        },
        onkeydown: event => {
          if (event.key === 'Escape') leave();
          else if (sends(event)) form.requestSubmit();
          else return;
          event.preventDefault();
          event.stopPropagation();
        },
      },
      box,
      h(
        'div.row',
        {},
        h('button', { type: 'button', onclick: leave }, say('cancel')),
        h('button.main', { type: 'submit' }, say('send')),
      ),
    );
    this.editing = true;
    this.element.querySelector('.question').replaceWith(form);
    this.footer.replaceChildren();
    this.footer.dataset.state = '';
    grow(box);
    box.addEventListener('input', () => grow(box));
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }
}

function lastLine(text) {
  return text
    .slice(-600)
    .trimEnd()
    .split('\n')
    .at(-1)
    .replace(/[*_`#>]+/g, '')
    .slice(-160);
}

function tokenCount(tokens) {
  return tokens === null ? '' : say('tokens', { n: tokens });
}
