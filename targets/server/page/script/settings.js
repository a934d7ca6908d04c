// Settings of this browser. Empty means: as the model's own file says.

const DEFAULTS = {
  language: '',
  theme: '',
  thinking: 'auto',
  system: '',
  temperature: '',
  top_p: '',
  max_tokens: '',
  seed: '',
  schema: '',
};

const settings = {
  values: { ...DEFAULTS },

  load() {
    let stored = {};
    try {
      stored = JSON.parse(localStorage.getItem('vaquita-settings')) ?? {};
    } catch {
      // Storage is forbidden or holds something else: the defaults do.
    }
    for (const name of Object.keys(DEFAULTS)) {
      if (typeof stored[name] === 'string') this.values[name] = stored[name];
    }
  },

  change(values) {
    Object.assign(this.values, values);
    try {
      localStorage.setItem('vaquita-settings', JSON.stringify(this.values));
    } catch {
      // They hold until the page is closed.
    }
    emit('settings');
  },
};

// The key of the server: forgotten when the tab is closed.
const key = {
  value: '',
  load() {
    try {
      this.value = sessionStorage.getItem('vaquita-key') ?? '';
    } catch {
      this.value = '';
    }
  },
  change(value) {
    this.value = value;
    try {
      sessionStorage.setItem('vaquita-key', value);
    } catch {
      // It holds until the page is closed.
    }
  },
};

function applyTheme() {
  document.documentElement.dataset.theme = settings.values.theme;
}
