// Languages in the order of the list, with their own names.

const LANGUAGE_NAMES = {
  en: 'English',
  zh: '中文',
  ar: 'العربية',
  es: 'Español',
  fr: 'Français',
  de: 'Deutsch',
  pt: 'Português',
  ru: 'Русский',
  ja: '日本語',
  hi: 'हिन्दी',
};

const RIGHT_TO_LEFT = new Set(['ar']);

// The first of the browser's languages that the page has.
function preferredLanguage() {
  const wanted = navigator.languages.map(tag => tag.split('-')[0]);
  return wanted.find(tag => tag in LANGUAGES) ?? 'en';
}
