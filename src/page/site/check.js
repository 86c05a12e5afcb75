// Runs before everything else, and in every browser: says in a sentence why the page cannot run here. Not a module, since
// modules are what does not load from a file.
(function () {
  "use strict";
  var reason = "";
  if (location.protocol === "file:") {
    reason = "This page was opened as a file, and browsers run WebAssembly and workers from a server only. In a terminal, " +
      "go to this folder, run “python3 -m http.server” and open http://localhost:8000 instead.";
  } else if (typeof WebAssembly !== "object" || typeof Worker !== "function" || !("noModule" in document.createElement("script"))) {
    reason = "This browser has no WebAssembly or no module workers, which the model runs in. Use a current Firefox, " +
      "Chrome, Edge or Safari.";
  }
  if (reason === "") return;
  document.documentElement.className = "cannot";
  document.addEventListener("DOMContentLoaded", function () {
    var place = document.getElementById("cannot");
    place.textContent = reason;
    place.hidden = false;
  });
})();
