// A small highlighter: a language is a list of rules, tried in order at each place; the first that matches wins.
// Every pattern is linear in its input, and what no rule knows stays as it is.

// Longer code is shown without colours.
const HIGHLIGHT_LIMIT = 100_000;

const WORD = /[\p{L}_$][\p{L}\p{N}_$]*/uy;
const NUMBER = /(?:0[xX][\da-fA-F_]+|0[bBoO][\d_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)[a-zA-Z%]*/y;
const SLASHES = /\/\/.*|\/\*[^]*?(?:\*\/|$)/y;
const HASH = /#.*/y;
const DASHES = /--.*/y;
const QUOTED = /"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/y;
const DOUBLE_QUOTED = /"(?:\\[^]|[^"\\])*"?/y;

// The usual shape of a programming language.
function code(keywords, { comments = SLASHES, strings = QUOTED, before = [], ignoreCase = false } = {}) {
  const known = new Set(keywords.split(' '));
  return {
    rules: [...before, ['comment', comments], ['string', strings], ['number', NUMBER], ['word', WORD]],
    // A word is a keyword, a type, a function, or nothing in particular.
    word(text, next) {
      if (known.has(ignoreCase ? text.toLowerCase() : text)) return 'keyword';
      if (next === '(') return 'function';
      return /^[A-Z]\w*[a-z]/.test(text) ? 'type' : null;
    },
  };
}

const marks = rules => ({ rules, word: () => null });

const C_WORDS =
  'auto break case char const continue default do double else enum extern float for goto if inline int long ' +
  'register return short signed sizeof static struct switch typedef union unsigned void volatile while bool true false';
const JS_WORDS =
  'async await break case catch class const continue debugger default delete do else export extends false finally ' +
  'for from function get if import in instanceof let new null of return set static super switch this throw true try ' +
  'typeof undefined var void while yield';
const JAVA_WORDS =
  'abstract boolean break byte case catch char class const continue default do double else enum extends false final ' +
  'finally float for if implements import instanceof int interface long native new null package private protected ' +
  'public record return sealed short static super switch synchronized this throw throws true try var void volatile while';

const JS = { strings: /`(?:\\[^]|[^`\\])*`?|"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/y };
const PREPROCESSOR = ['meta', /^[ \t]*#[ \t]*\w+/my];

const GRAMMARS = {
  bash: code(
    'if then elif else fi for while until do done case esac in function return local export readonly declare set unset ' +
      'echo cd exit source trap shift eval exec true false sudo',
    {
      comments: /(?<![^\s;])#.*/y,
      strings: /"(?:\\[^]|[^"\\])*"?|'[^']*'?/y,
      before: [
        ['type', /\$(?:\w+|\{[^}\n]*\}?|[@*#?$!-])/y],
        ['attribute', /(?<=\s)--?[\w-]+/y],
      ],
    },
  ),
  c: code(C_WORDS, { before: [PREPROCESSOR] }),
  cpp: code(
    C_WORDS +
      ' alignas auto catch class concept constexpr consteval const_cast decltype delete dynamic_cast explicit export final ' +
      'friend mutable namespace new noexcept nullptr operator override private protected public requires static_cast ' +
      'template this throw try typename using virtual co_await co_return co_yield',
    { before: [PREPROCESSOR] },
  ),
  csharp: code(
    JAVA_WORDS +
      ' as async await base bool checked decimal delegate event explicit foreach get in init internal is lock namespace ' +
      'nameof object operator out override params partial readonly ref sbyte set sizeof string struct typeof uint ulong ' +
      'using virtual when where with yield',
    { strings: /[$@]{0,2}"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/y },
  ),
  css: marks([
    ['comment', /\/\*[^]*?(?:\*\/|$)/y],
    ['string', QUOTED],
    ['keyword', /@[\w-]+|!important/y],
    ['number', /#[\da-fA-F]{3,8}\b|-?\d[\d.]*(?:%|[a-z]+)?/y],
    ['attribute', /--[\w-]+|[\w-]+(?=\s{0,8}:)/y],
    ['type', /[.#][\w-]+/y],
    ['word', /[\w-]+/y],
  ]),
  diff: marks([
    ['meta', /^(?:@@.*|diff .*|index .*|\+\+\+.*|---.*)/my],
    ['added', /^\+.*/my],
    ['removed', /^-.*/my],
    ['word', /.+/y],
  ]),
  go: code(
    'break case chan const continue default defer else fallthrough for func go goto if import interface map package range ' +
      'return select struct switch type var nil true false iota string int int8 int16 int32 int64 uint uint8 uint32 ' +
      'uint64 byte rune float32 float64 bool error any make new len cap append',
    { strings: /`[^`]*`?|"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/y },
  ),
  html: marks([
    ['comment', /<!-{2}[^]*?(?:-->|$)/y],
    ['meta', /<![^>]*>?|<\?[^>]*>?/y],
    ['keyword', /<\/?[\w:-]+|\/?>/y],
    ['string', /(?<==\s?)(?:"[^"]*"?|'[^']*'?)/y],
    ['attribute', /[\w:@.-]+(?==)/y],
    ['number', /&#?\w{1,32};/y],
    ['word', /[\w-]+/y],
  ]),
  ini: marks([
    ['comment', /[#;].*/y],
    ['keyword', /^\s*\[[^\]\n]*\]+/my],
    ['attribute', /^[ \t]*[\w."-]+(?=[ \t]*=)/my],
    ['string', /"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\[^]|[^"\\\n])*"?|'[^'\n]*'?/y],
    ['number', NUMBER],
    ['keyword', /\b(?:true|false)\b/y],
    ['word', /[\w-]+/y],
  ]),
  java: code(JAVA_WORDS, { before: [['meta', /@\w+/y]] }),
  javascript: code(JS_WORDS, JS),
  json: marks([
    ['attribute', /"(?:\\[^]|[^"\\\n])*"(?=\s{0,64}:)/y],
    ['string', DOUBLE_QUOTED],
    ['number', /-?\d[\d.]*(?:[eE][+-]?\d+)?/y],
    ['keyword', /\b(?:true|false|null)\b/y],
    ['comment', SLASHES],
    ['word', WORD],
  ]),
  kotlin: code(
    JAVA_WORDS +
      ' as by companion constructor crossinline data fun in init inline internal is it lateinit object open ' +
      'operator out override reified suspend typealias val vararg when where',
    { strings: /"""[^]*?(?:"""|$)|"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/y },
  ),
  lua: code(
    'and break do else elseif end false for function goto if in local nil not or repeat return then true until while',
    {
      comments: /--\[\[[^]*?(?:\]\]|$)|--.*/y,
      strings: /\[\[[^]*?(?:\]\]|$)|"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/y,
    },
  ),
  make: marks([
    ['comment', HASH],
    ['function', /^[\w./%$()-]+(?=\s{0,8}:(?!=))/my],
    ['type', /\$(?:\([^)\n]*\)?|\{[^}\n]*\}?|.)/y],
    ['attribute', /^\w+(?=\s{0,8}[:?+]?=)/my],
    ['word', /[\w-]+/y],
  ]),
  markdown: marks([
    ['keyword', /^#{1,6} .*/my],
    ['string', /`[^`\n]*`?/y],
    ['type', /\*\*[^*\n]+\*\*/y],
    ['attribute', /^\s*(?:[-*+]|\d+\.)(?= )/my],
    ['comment', /^>.*/my],
    ['word', /[\w-]+/y],
  ]),
  php: code(
    JAVA_WORDS +
      ' and array as callable clone declare echo elseif endforeach endif endwhile empty fn foreach function global ' +
      'include include_once insteadof isset list match namespace or print require require_once trait unset use xor yield',
    {
      comments: /\/\/.*|#.*|\/\*[^]*?(?:\*\/|$)/y,
      before: [
        ['meta', /<\?(?:php|=)?|\?>/y],
        ['type', /\$\w+/y],
      ],
    },
  ),
  python: code(
    'and as assert async await break case class continue def del elif else except False finally for from global if import ' +
      'in is lambda match None nonlocal not or pass raise return True try while with yield self print len range int str ' +
      'float list dict set tuple bool',
    {
      comments: HASH,
      strings:
        /[rbfuRBFU]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?)/y,
      before: [['meta', /^[ \t]*@[\w.]+/my]],
    },
  ),
  ruby: code(
    'alias and begin break case class def defined do else elsif end ensure false for if in module next nil not or redo ' +
      'require rescue retry return self super then true undef unless until when while yield attr_accessor puts',
    { comments: HASH, before: [['type', /[@$]+\w+|:\w+/y]] },
  ),
  rust: code(
    'as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ' +
      'ref return self Self static struct super trait true type unsafe use where while u8 u16 u32 u64 u128 usize i8 i16 ' +
      'i32 i64 i128 isize f32 f64 bool char str',
    {
      strings: /b?r(#*)"[^]*?(?:"\1|$)|b?"(?:\\[^]|[^"\\])*"?|b?'(?:\\[^'\n]{1,10}|[^'\\\n])'/y,
      before: [
        ['meta', /#!?\[[^\]\n]*\]?/y],
        ['type', /'[a-z_]\w*(?!')/y],
        ['function', /[a-z_]\w*!(?!=)/y],
      ],
    },
  ),
  sql: code(
    'add all alter and as asc begin between by case cast check column commit constraint create cross database default delete ' +
      'desc distinct drop else end except exists foreign from full group having if in index inner insert intersect into is ' +
      'join key left like limit not null offset on or order outer over partition primary references returning right ' +
      'rollback select set table then transaction union unique update using values view when where with integer int text ' +
      'varchar char boolean date timestamp numeric real true false count sum avg min max',
    { comments: /--.*|\/\*[^]*?(?:\*\/|$)/y, ignoreCase: true },
  ),
  swift: code(
    'actor as associatedtype async await break case catch class continue default defer deinit do else enum extension false ' +
      'fileprivate final for func guard if import in init inout internal is lazy let mutating nil open operator override ' +
      'private protocol public repeat rethrows return self Self some static struct subscript super switch throw throws ' +
      'true try typealias var weak where while',
    { strings: /"""[^]*?(?:"""|$)|"(?:\\[^]|[^"\\\n])*"?/y, before: [['meta', /[@#]\w+/y]] },
  ),
  typescript: code(
    JS_WORDS +
      ' abstract any as asserts bigint boolean declare enum implements infer interface is keyof module namespace ' +
      'never number object override private protected public readonly satisfies string symbol type unique unknown',
    JS,
  ),
  yaml: marks([
    ['comment', /(?<!\S)#.*/y],
    ['attribute', /[\w./-]+(?=:(?:\s|$))|"[^"\n]*"(?=:\s)/y],
    ['string', QUOTED],
    ['meta', /^---.*|[&*]\w+|![\w!/]*/my],
    ['keyword', /\b(?:true|false|null|yes|no|on|off)\b/y],
    ['number', /\b\d[\d._]*\b/y],
    ['word', /[\w-]+/y],
  ]),
};

const ALIASES = {
  'c#': 'csharp',
  'c++': 'cpp',
  cc: 'cpp',
  cs: 'csharp',
  cxx: 'cpp',
  console: 'bash',
  dockerfile: 'bash',
  golang: 'go',
  h: 'c',
  hpp: 'cpp',
  htm: 'html',
  js: 'javascript',
  json5: 'json',
  jsonc: 'json',
  jsx: 'javascript',
  kt: 'kotlin',
  makefile: 'make',
  md: 'markdown',
  mjs: 'javascript',
  patch: 'diff',
  postgresql: 'sql',
  py: 'python',
  python3: 'python',
  rb: 'ruby',
  rs: 'rust',
  scala: 'kotlin',
  sh: 'bash',
  shell: 'bash',
  sqlite: 'sql',
  svg: 'html',
  toml: 'ini',
  ts: 'typescript',
  tsx: 'typescript',
  vue: 'html',
  xml: 'html',
  yml: 'yaml',
  zsh: 'bash',
};

// `text` as nodes: spans with the class of their kind, and plain text.
function highlight(text, name) {
  const wanted = name.toLowerCase();
  const grammar = Object.hasOwn(GRAMMARS, wanted)
    ? GRAMMARS[wanted]
    : GRAMMARS[Object.hasOwn(ALIASES, wanted) ? ALIASES[wanted] : ''];
  const result = document.createDocumentFragment();
  if (!grammar || text.length > HIGHLIGHT_LIMIT) {
    result.append(text);
    return result;
  }
  let plain = '';
  for (let at = 0; at < text.length;) {
    const [kind, piece] = pieceAt(grammar, text, at);
    at += piece.length;
    if (kind === null) {
      plain += piece;
      continue;
    }
    result.append(plain, h(`span.${kind}`, {}, piece));
    plain = '';
  }
  result.append(plain);
  return result;
}

function pieceAt({ rules, word }, text, at) {
  for (const [kind, pattern] of rules) {
    pattern.lastIndex = at;
    const piece = pattern.exec(text)?.[0];
    if (!piece) continue;
    return [kind === 'word' ? word(piece, text[at + piece.length]) : kind, piece];
  }
  return [null, text[at]];
}
