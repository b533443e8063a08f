"use strict";

// In the results of a search, first come headings with the words that were looked for.
var Scorer = {
  score: (result) => result[4] + (result[6] === "title" ? 15 : 0),
  title: 15, partialTitle: 7, term: 5, partialTerm: 2, // as in Sphinx
};

// What Sphinx has not translated: the line above the results of a search.
if (document.documentElement.lang === "ja")
  Documentation.TRANSLATIONS["Search finished, found one page matching the search query."] = ["${resultCount} ページが見つかりました。"];

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

// The other language's page opens at the same section. Its anchor has another name there, so the link has its number.
document.addEventListener("DOMContentLoaded", () => {
  const sections = [...document.querySelectorAll(".bd-article section")];
  const number = location.hash.match(/^#section-(\d+)$/)?.[1];
  if (number in sections) location.replace(`#${sections[number].id}`);
  for (const link of document.querySelectorAll(".site-language")) {
    const follow = () => {
      const shown = sections.findLastIndex((section) => section.getBoundingClientRect().top < 120);
      link.hash = shown > 0 ? `section-${shown}` : "";
    };
    link.addEventListener("click", follow);
    link.addEventListener("auxclick", follow);
  }
});

// sphinx-design shows the framework of the reader's choice once the whole page is read; do so before any of it is painted.
const framework =
  new URLSearchParams(location.search).get("framework") ?? localStorage.getItem("sphinx-design-tab-id-framework");
const early = new MutationObserver(() => {
  const labels = document.querySelectorAll(`.sd-tab-label[data-sync-id="${CSS.escape(framework)}"]`);
  for (const label of labels) label.previousElementSibling.checked = true;
});
early.observe(document, { childList: true, subtree: true });
document.addEventListener("DOMContentLoaded", () => early.disconnect());
