// Markdown to elements. The model's text is hostile: its HTML is text, its images are not loaded, its links name their
// target, and what the parser makes of it goes through a sanitizer that knows a short list of elements.

const ALLOWED = {
  ALLOWED_TAGS:
    'a blockquote br code del em h3 h4 h5 h6 hr li ol p pre span strong table tbody td th thead tr ul'.split(
      ' ',
    ),
  ALLOWED_ATTR: ['href', 'align', 'start', 'class', 'data-math', 'data-image'],
  // The pattern is for addresses; these attributes have none, or one that is never requested.
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ['align', 'start', 'class', 'data-math', 'data-image'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escaped = text => text.replace(/[&<>"']/g, character => escapes[character]);

// Formulas of the block that is being rendered: its HTML names them by their index.
let formulas = [];

const mathBlock = {
  name: 'mathBlock',
  level: 'block',
  start: source => source.match(/\$\$|\\\[/)?.index,
  tokenizer(source) {
    const found = /^ {0,3}(?:\$\$([^]{1,4000}?)\$\$|\\\[([^]{1,4000}?)\\\])[ \t]*(?:\n|$)/.exec(source);
    if (found) return { type: 'mathBlock', raw: found[0], source: found[1] ?? found[2] };
  },
  renderer: token => `<p><span data-math="${formulas.push({ ...token, display: true }) - 1}"></span></p>`,
};

const mathInline = {
  name: 'mathInline',
  level: 'inline',
  start: source => source.match(/\$|\\[([]/)?.index,
  tokenizer(source) {
    const display = /^(?:\$\$([^$]{1,4000})\$\$|\\\[([^]{1,4000}?)\\\])/.exec(source);
    if (display) {
      return { type: 'mathInline', raw: display[0], source: display[1] ?? display[2], display: true };
    }
    // "$5 and $6" is money: no blank inside the dollars, no digit after them.
    const inline = /^(?:\$(?!\s)((?:\\.|[^\\$\n]){1,1000})(?<!\s)\$(?!\d)|\\\(([^]{1,4000}?)\\\))/.exec(source);
    if (inline) return { type: 'mathInline', raw: inline[0], source: inline[1] ?? inline[2], display: false };
  },
  renderer: token => `<span data-math="${formulas.push(token) - 1}"></span>`,
};

const renderer = {
  html: ({ text }) => (/^<br\s*\/?>$/i.test(text) ? '<br>' : escaped(text)),
  image: ({ href, text }) => `<span data-image="${escaped(href)}">${escaped(text)}</span>`,
  checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
  // Above them are the page's own headings.
  heading({ tokens, depth }) {
    const tag = `h${Math.min(6, depth + 2)}`;
    return `<${tag}>${this.parser.parseInline(tokens)}</${tag}>`;
  },
};

let marked;
function parser() {
  if (!marked) {
    marked = new (library('marked').Marked)({ gfm: true, breaks: true });
    // Without blocks of HTML their text is a paragraph.
    marked.use({ renderer, tokenizer: { html: () => undefined }, extensions: [mathBlock, mathInline] });
  }
  return marked;
}

// Blocks of `text`, with links that earlier text defined.
function blocksOf(text, links) {
  const { Lexer } = library('marked');
  const lexer = new Lexer(parser().defaults);
  Object.assign(lexer.tokens.links, links);
  const tokens = lexer.lex(text);
  Object.assign(links, tokens.links);
  return tokens;
}

// Elements of one block.
function renderBlock(token) {
  formulas = [];
  const html = parser().parser([token]);
  const fragment = library('DOMPurify').sanitize(html, ALLOWED);
  for (const place of fragment.querySelectorAll('[data-math]')) {
    const { source, display } = formulas[place.dataset.math] ?? { source: '' };
    place.replaceWith(formula(source, display));
  }
  for (const place of fragment.querySelectorAll('[data-image]')) place.replaceWith(imageLink(place));
  for (const link of fragment.querySelectorAll('a')) dressLink(link);
  for (const table of fragment.querySelectorAll('table')) {
    const frame = h('div.table', { tabIndex: 0, role: 'group', 'aria-label': say('table') });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of fragment.querySelectorAll('pre')) dressCode(pre);
  for (const inline of fragment.querySelectorAll('code')) inline.dir = 'ltr';
  for (const element of fragment.querySelectorAll('p, li, h3, h4, h5, h6, td, th')) element.dir = 'auto';
  // What contains blocks of its own follows the first of them.
  for (const element of fragment.querySelectorAll('ul, ol, blockquote, table')) {
    element.dir = direction(element.textContent);
  }
  return fragment;
}

// Direction of the first letter.
function direction(text) {
  const letter = /\p{L}/u.exec(text)?.[0] ?? '';
  return /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u.test(letter)
    ? 'rtl'
    : 'ltr';
}

function dressLink(link) {
  if (!link.hasAttribute('href')) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.target = '_blank';
  link.rel = 'noopener noreferrer nofollow';
  link.title = link.getAttribute('href');
}

// An image is a request that tells a stranger what the model has read. So it is a link, which the user may follow;
// only an image within the text itself can be shown in place.
function imageLink(place) {
  const address = place.dataset.image;
  const name = place.textContent || say('image');
  if (/^data:image\/(?:png|jpeg|gif|webp);base64,/i.test(address)) {
    const button = h('button.image', { type: 'button' }, say('show_image', { name }));
    button.onclick = () => button.replaceWith(h('img', { src: address, alt: name }));
    return button;
  }
  if (!/^https?:/i.test(address)) return document.createTextNode(name);
  const host = address.replace(/^https?:\/*/i, '').split(/[/?#]/)[0];
  const link = h('a.image', { href: address }, say('image_at', { name, host }));
  dressLink(link);
  return link;
}

function dressCode(pre) {
  const text = pre.textContent.replace(/\n$/, '');
  const name = /language-(\S{1,32})/.exec(pre.firstElementChild?.className ?? '')?.[1] ?? '';
  pre.replaceWith(codeBlock(text, name));
}

function codeBlock(text, name) {
  const copy = h('button', { type: 'button' }, icon('copy'), say('copy'));
  copy.onclick = () => copyText(text, copy);
  const label = h('span', {}, name);
  const code = h('code', {}, highlight(text, name));
  const pre = h('pre', { tabIndex: 0, role: 'group', 'aria-label': name || say('code') }, code);
  return h('div.code', { dir: 'ltr' }, h('div.label', {}, label, copy), pre);
}

// Copies, and says so on the button for a moment.
async function copyText(text, button) {
  const old = [...button.childNodes];
  if (!(await toClipboard(text))) return;
  button.replaceChildren(icon('done'), ...(old.length > 1 ? [say('copied')] : []));
  speak(say('copied'));
  setTimeout(() => button.replaceChildren(...old), 2000);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages over plain HTTP have no clipboard; they can copy what is selected.
    const box = h('textarea', { value: text, className: 'hidden', 'aria-hidden': 'true' });
    const focused = document.activeElement;
    (document.querySelector('dialog[open]') ?? document.body).append(box);
    box.select();
    const copied = document.execCommand('copy');
    box.remove();
    focused?.focus();
    return copied;
  }
}
