// Conversations in IndexedDB: two stores, one record per conversation and one per message.
// Where the browser forbids storage, they are kept in memory until the page is closed.

const database = {
  stores: null,
  lasting: true,

  async open() {
    try {
      this.stores = storesOf(await openDatabase());
    } catch {
      this.stores = { conversations: memoryStore(), messages: memoryStore() };
      this.lasting = false;
    }
  },

  // The newest first.
  async conversations() {
    const all = await this.stores.conversations.all();
    return all.sort((a, b) => b.updated - a.updated || (a.id < b.id ? 1 : -1));
  },

  conversation(id) {
    return this.stores.conversations.get(id);
  },

  async messages(conversation) {
    const all = await this.stores.messages.of(conversation);
    return all.sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
  },

  saveConversation(conversation) {
    return this.stores.conversations.put(conversation);
  },

  saveMessages(...messages) {
    return this.stores.messages.put(...messages);
  },

  async remove(conversation) {
    const messages = await this.messages(conversation);
    await this.stores.messages.remove(...messages.map(message => message.id));
    await this.stores.conversations.remove(conversation);
  },

  // Conversations whose title or messages contain every word.
  async search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = new Map();
    const add = (id, ...parts) => texts.set(id, [texts.get(id) ?? '', ...parts].join('\n'));
    const all = await this.conversations();
    for (const { id, title } of all) add(id, title.toLowerCase());
    await this.stores.messages.each(message => {
      if (texts.has(message.conversation)) add(message.conversation, message.content.toLowerCase());
    });
    return all.filter(({ id }) => words.every(word => texts.get(id).includes(word)));
  },
};

function openDatabase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open('vaquita', 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore('conversations', { keyPath: 'id' });
      const messages = request.result.createObjectStore('messages', { keyPath: 'id' });
      messages.createIndex('conversation', 'conversation');
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('blocked'));
  });
}

const finished = request =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

function storesOf(opened) {
  const store = name => {
    const within = mode => opened.transaction(name, mode).objectStore(name);
    const change = work =>
      new Promise((resolve, reject) => {
        const transaction = opened.transaction(name, 'readwrite');
        transaction.oncomplete = () => resolve();
        transaction.onabort = () => reject(transaction.error);
        work(transaction.objectStore(name));
      });
    return {
      get: id => finished(within('readonly').get(id)),
      all: () => finished(within('readonly').getAll()),
      of: conversation => finished(within('readonly').index('conversation').getAll(conversation)),
      put: (...records) => change(store => records.forEach(record => store.put(record))),
      remove: (...ids) => change(store => ids.forEach(id => store.delete(id))),
      each: visit =>
        new Promise((resolve, reject) => {
          const request = within('readonly').openCursor();
          request.onerror = () => reject(request.error);
          request.onsuccess = () => {
            if (!request.result) return resolve();
            visit(request.result.value);
            request.result.continue();
          };
        }),
    };
  };
  return { conversations: store('conversations'), messages: store('messages') };
}

function memoryStore() {
  const records = new Map();
  const all = async () => [...records.values()].map(record => structuredClone(record));
  return {
    get: async id => structuredClone(records.get(id)),
    all,
    of: async conversation => (await all()).filter(record => record.conversation === conversation),
    put: async (...added) => added.forEach(record => records.set(record.id, structuredClone(record))),
    remove: async (...ids) => ids.forEach(id => records.delete(id)),
    each: async visit => (await all()).forEach(visit),
  };
}
