// Sentences in the language of the user: say('queued', { n: 3 }).

let language = 'en';

function say(name, values = {}) {
  let sentence = LANGUAGES[language][name];
  if (typeof sentence === 'object') {
    const form = new Intl.PluralRules(language).select(values.n);
    sentence = sentence[form] ?? sentence.other;
  }
  return sentence.replace(/\{(\w+)\}/g, (_, blank) => {
    const value = values[blank];
    return typeof value === 'number' ? number(value) : value;
  });
}

function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

// Three figures, as measured quantities deserve.
function quantity(value) {
  return new Intl.NumberFormat(language, { maximumSignificantDigits: 3 }).format(value);
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];
function bytes(value) {
  const power = Math.min(UNITS.length - 1, value < 1000 ? 0 : Math.floor(Math.log10(value) / 3));
  return `${quantity(value / 1000 ** power)} ${UNITS[power]}`;
}

// "8 s", "2 min 5 s", in the words of the language; short times with as many `digits`.
function duration(seconds, digits = 0) {
  if (digits > 0 && seconds < 9.95) return say('seconds', { n: number(seconds, digits) });
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return say('seconds', { n: whole });
  return say('minutes', { n: Math.floor(whole / 60), seconds: whole % 60 });
}

function applyLanguage() {
  language = settings.values.language in LANGUAGES ? settings.values.language : preferredLanguage();
  document.documentElement.lang = language;
  document.documentElement.dir = RIGHT_TO_LEFT.has(language) ? 'rtl' : 'ltr';
  for (const element of document.querySelectorAll('[data-say]')) {
    element.textContent = say(element.dataset.say);
  }
  for (const element of document.querySelectorAll('[data-name]')) {
    const name = say(element.dataset.name);
    element.setAttribute('aria-label', name);
    if (element.localName === 'button') element.title = name;
  }
  for (const element of document.querySelectorAll('[data-hint]')) {
    element.placeholder = say(element.dataset.hint);
  }
}
