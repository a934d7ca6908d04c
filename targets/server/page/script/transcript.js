// The branch of the conversation that is shown. Messages far from the window are held, not drawn.

class Transcript {
  constructor(actions) {
    this.actions = actions;
    this.frame = byId('transcript');
    this.list = byId('messages');
    this.toEnd = byId('to-end');
    this.views = [];
    this.following = true;
    this.watch = new IntersectionObserver(
      entries => entries.forEach(({ target, isIntersecting }) => target.messageView.show(isIntersecting)),
      { root: this.frame, rootMargin: '100% 0px' },
    );
    this.frame.addEventListener('scroll', () => this.scrolled(), { passive: true });
    this.toEnd.onclick = () => this.end();
    new ResizeObserver(() => this.following && this.end()).observe(this.list);
    new ResizeObserver(() => this.following && this.end()).observe(this.frame);
    const draw = perFrame(() => this.drawChanged());
    this.changed = new Set();
    on('message', message => {
      this.changed.add(message.id);
      draw();
    });
    // Seconds of thought go on between the tokens.
    setInterval(
      () => this.views.forEach(view => view.near && thinking(view.message) && view.updateSeconds()),
      1000,
    );
  }

  // Shows `branch`; messages that are shown already keep their elements.
  show(branch) {
    const same = branch.findIndex((message, i) => this.views[i]?.message !== message);
    const kept = same < 0 ? branch.length : same;
    for (const view of this.views.splice(kept)) {
      this.watch.unobserve(view.element);
      view.element.remove();
    }
    for (const message of branch.slice(kept)) {
      const view = new MessageView(message, this.actions);
      this.views.push(view);
    }
    this.list.append(...this.views.slice(kept).map(view => view.element));
    // The last ones are seen at once, whatever the observer does.
    for (const view of this.views.slice(-2)) view.show(true);
    for (const view of this.views.slice(kept)) this.watch.observe(view.element);
    for (const view of this.views.slice(0, kept)) view.update();
  }

  clear() {
    this.show([]);
  }

  drawChanged() {
    for (const view of this.views) {
      if (this.changed.has(view.message.id)) view.update();
    }
    this.changed.clear();
  }

  // Everything again, in another language.
  redraw() {
    for (const view of this.views) view.near ? view.draw() : view.hold();
  }

  viewOf(message) {
    return this.views.find(view => view.message === message);
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.frame;
    this.following = scrollHeight - scrollTop - clientHeight < 48;
    this.toEnd.hidden = this.following;
  }

  end() {
    this.following = true;
    this.frame.scrollTop = this.frame.scrollHeight;
    this.toEnd.hidden = true;
  }
}
