// What a screen reader hears: an answer by sentences, not by tokens.

// The number of an item is no sentence.
const SENTENCE_END = /(?<!(?:^|\n)\s{0,8}\d{1,3})[.!?…。！？؟।]+["'”’»)\]]*(?=\s|$)|[。！？]|\n{2,}/g;

function speak(text) {
  const log = byId('speaker');
  log.append(h('p', {}, text));
  while (log.childElementCount > 12) log.firstChild.remove();
}

class Speaker {
  constructor() {
    this.spoken = 0; // characters
  }

  // Speaks the sentences of `text` that have become complete.
  hear(text, complete) {
    const rest = text.slice(this.spoken);
    let end = 0;
    for (const match of rest.matchAll(SENTENCE_END)) {
      const after = match.index + match[0].length;
      if (after < rest.length || /\n/.test(match[0])) end = after;
    }
    if (complete) end = rest.length;
    // Code is one thing, to be read where it stands.
    if (end === 0 || (!complete && (text.slice(0, this.spoken + end).split('```').length - 1) % 2 === 1))
      return;
    const sentences = asSpoken(rest.slice(0, end));
    this.spoken += end;
    if (sentences) speak(sentences);
  }
}

function asSpoken(markdown) {
  return markdown
    .replace(/```[^]*?(?:```|$)/g, ` ${say('code')}. `)
    .replace(/!?\[([^\]\n]*)\]\([^)\n]*\)/g, '$1')
    .replace(/^[ \t]*\|?(?:[ \t]*:?-{2,}:?[ \t]*\|?)+$/gm, ' ') // rules below the heads of tables
    .replace(/^[ \t]*(?:[-+*]|\d{1,3}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?/gm, ' ') // marks of items
    .replace(/[*_`#>|~$]+/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
}
