"use strict";

// Sphinx fetches each page that it found to show a piece of it, which no browser does from the file system.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// sphinx-design changes all tabs of a page at once; keep the one that was chosen where it is.
document.addEventListener("DOMContentLoaded", () => {
  for (const input of document.querySelectorAll(".sd-tab-set > input")) {
    let top;
    const place = () => input.nextElementSibling.getBoundingClientRect().top;
    document.addEventListener("change", (event) => { if (event.target === input) top = place(); }, true);
    input.addEventListener("change", () => window.scrollBy({ top: place() - top, behavior: "instant" }));
  }
});
