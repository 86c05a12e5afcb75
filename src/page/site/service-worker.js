// Serves the page's own files from the browser's cache, so that it opens without a connection. The line before this one, which
// slmc wrote, names them and has their digest as `version`: a page that is compiled anew has another, and replaces them.
// Pieces of the artifact are put there by worker.js, once they are checked, and served by it.
const folder = new URL("./", self.location).pathname;
const FILES = `slmc page ${folder} ${PAGE.version}`;
const PIECES = `slmc pieces ${folder}`;

self.addEventListener("install", (event) => {
  const requests = ["./", ...PAGE.files].map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(FILES).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

/** Removes what earlier versions of this page kept. */
async function clean() {
  for (const name of await caches.keys()) {
    if (name.startsWith(`slmc page ${folder} `) && name !== FILES) await caches.delete(name);
  }
  const pieces = await caches.open(PIECES);
  const known = new Set(PAGE.pieces.map((piece) => new URL(piece, self.location).href));
  for (const request of await pieces.keys()) {
    if (!known.has(request.url)) await pieces.delete(request);
  }
}

self.addEventListener("activate", (event) => {
  event.waitUntil(clean().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== self.location.origin || !url.pathname.startsWith(folder)) return;
  // Without a cached answer the server is asked, as it would be without this worker.
  const cached = caches.open(FILES).then((cache) => cache.match(event.request, { ignoreSearch: true }));
  event.respondWith(cached.then((response) => response ?? fetch(event.request)));
});
