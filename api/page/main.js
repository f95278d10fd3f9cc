/** The page's start, and which of its views an address shows. */

import { ask, connect } from "./api.js";
import { showAdapter } from "./adapter.js";
import { part, showing, working } from "./dom.js";
import { showJob } from "./jobs.js";
import { askForKey, startKeys } from "./key.js";
import { showLibrary, startLibrary } from "./library.js";
import { showAdapters } from "./lists.js";
import { start as startMaking } from "./make.js";
import { showName } from "./names.js";

/** By address: the view, the link of the bar that leads there, and what fills it (or nothing). */
const VIEWS = [
  [/^(?:#\/)?$/, "make", "#/", null],
  [/^#\/jobs\/(.+)$/, "job", "#/", openJob],
  [/^#\/adapters$/, "adapters", "#/adapters", (view, _, signal) => showAdapters(view, signal)],
  [/^#\/adapters\/(.+)$/, "adapter", "#/adapters", showAdapter],
  [/^#\/names\/(.+)$/, "name", "#/adapters", openName],
  [/^#\/library(?:\/(.+))?$/, "library", "#/library", (_, id, signal) => showLibrary(id, signal)],
];
let left = new AbortController();

/** Show what the address says; addresses of other kinds, as of the skip link, change nothing. */
function open({ first = false } = {}) {
  const found = VIEWS.find(([pattern]) => pattern.test(location.hash));
  if (!found) return;
  const [pattern, name, link, fill] = found;
  left.abort();
  left = new AbortController();
  const view = document.querySelector(`[data-view=${name}]`),
    before = view.hidden;
  for (const other of document.querySelectorAll("[data-view]")) other.hidden = other !== view;
  for (const other of document.querySelectorAll(".bar nav a")) {
    if (other.getAttribute("href") === link) other.setAttribute("aria-current", "page");
    else other.removeAttribute("aria-current");
  }
  if (!first && before) {
    scrollTo(0, 0);
    view.querySelector("h1").focus({ preventScroll: true });
  }
  entitle(view);
  if (fill) openFilled(view, fill, pattern.exec(location.hash)[1], left.signal);
}

function openFilled(view, fill, id, signal) {
  const place = part(view, view.dataset.view === "job" ? "job" : "outcome");
  part(view, "body")?.replaceChildren();
  showing(place, "Asking …", async () => {
    const text = await fill(view, id && decodeURIComponent(id), signal);
    if (text && !signal.aborted) entitle(view, text);
  });
}

/** Give a view a title, or its own one again. */
function entitle(view, text) {
  const heading = view.querySelector("h1");
  heading.dataset.own ??= heading.textContent;
  heading.textContent = text ?? heading.dataset.own;
  document.title = `${heading.textContent} · lorasmith`;
}

/** A job of training, and then the adapter that it made. */
async function openJob(view, id, signal) {
  const made = await showJob(part(view, "job"), id, signal);
  location.replace(made.files ? `#/adapters/${made.id}` : "#/");
}

async function openName(view, name, signal) {
  const button = part(view, "delete");
  button.onclick = () => {
    if (!confirm(`Delete the name ${name}, its tests and its history? Its adapters stay.`)) return;
    working(button, view.lastElementChild, "Deleting …", async () => {
      await ask(`/v1/names/${encodeURIComponent(name)}`, { method: "DELETE" });
      location.hash = "#/adapters";
    });
  };
  await showName(part(view, "name"), name, signal);
  return name;
}

function onWaiting(why) {
  const told = why && `${why} Trying again …`;
  const place = document.getElementById("service");
  if (place.textContent !== told) place.textContent = told;
}

connect(askForKey, onWaiting);
startKeys();
startLibrary();
const making = document.querySelector("#make > [data-outcome]");
showing(making, "", startMaking);
addEventListener("hashchange", () => open());
open({ first: true });
