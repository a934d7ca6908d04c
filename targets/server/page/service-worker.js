// Keeps the document, so that the history can be read while the server is off. The API is never kept.
const CACHE = 'vaquita-page';
const FILES = ['./', 'manifest.webmanifest'];

self.addEventListener('install', event => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then(cache => cache.addAll(FILES))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener('activate', event => event.waitUntil(self.clients.claim()));

self.addEventListener('fetch', event => {
  const { request } = event;
  const address = new URL(request.url);
  const kept = FILES.some(file => new URL(file, self.registration.scope).pathname === address.pathname);
  if (request.method === 'GET' && kept) event.respondWith(newest(request));
});

// The server's answer where it gives one, else the last that was kept.
async function newest(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
