// Markdown that grows: blocks that are complete keep their elements, so that a frame's work is that of the last blocks.

// Longer texts are shown as they are.
const PROSE_LIMIT = 1_000_000;

class Prose {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.text = '';
    this.settled = 0; // characters in blocks that will not change
    this.blocks = []; // those that may: { raw, element }
    this.links = {};
  }

  // Shows `text`. When it is `complete`, links that were defined after their use are resolved, too.
  show(text, complete) {
    if (text.length > PROSE_LIMIT) {
      this.element.replaceChildren(h('p.as-is', { dir: 'auto' }, text));
      return;
    }
    const normal = text.replace(/\r\n?/g, '\n');
    if (!normal.startsWith(this.text)) this.clear();
    if (complete && Object.keys(this.links).length > 0) {
      const { links } = this;
      this.clear();
      this.links = links;
    }
    this.text = normal;

    const tail = normal.slice(this.settled);
    const tokens = blocksOf(tail, this.links);
    tokens.forEach((token, i) => this.showBlock(token, i));
    for (const block of this.blocks.splice(tokens.length)) block.element.remove();

    // Settle all but the last blocks. Their lengths are only known where the parser left the text as it was.
    const lengths = tokens.map(token => token.raw.length);
    if (lengths.reduce((sum, length) => sum + length, 0) !== tail.length) return;
    const count = Math.max(0, this.blocks.length - 3);
    for (let i = 0; i < count; i++) this.settled += lengths[i];
    this.blocks.splice(0, count);
  }

  showBlock(token, i) {
    const old = this.blocks[i];
    if (old?.raw === token.raw) return;
    const element = h('div.block', {}, renderBlock(token));
    if (old) old.element.replaceWith(element);
    else this.element.append(element);
    this.blocks[i] = { raw: token.raw, element };
  }
}
