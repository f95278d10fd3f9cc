/** The library: search it, list it, see it on a map, and read what an adapter of it is for. */

import { ask } from "./api.js";
import { el, part, percent, showing, working } from "./dom.js";
import { describe } from "./make.js";
import { Map2D } from "./map.js";
import { similarity } from "./trust.js";

const RESULTS = 10;

const view = document.querySelector("[data-view=library]");
const form = document.getElementById("search");
const list = part(view, "list"),
  title = part(view, "list-title"),
  more = part(view, "more");
const outcome = part(view, "outcome"),
  record = part(view, "record");
let map = null,
  listed = false;

/** Listen to the search. */
export function startLibrary() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = form.elements.q.value.trim();
    working(form.querySelector("button"), outcome, "Searching …", () =>
      text ? search(text) : showAll(),
    );
  });
}

/** Show the library, and one of its adapters if it is named. */
export async function showLibrary(id, signal) {
  if (!listed) await showAll(signal);
  if (!id) return;
  record.replaceChildren(); // so that nobody takes the description of the one before
  await showing(part(view, "record-outcome"), "Asking …", () => showRecord(id, signal));
}

async function search(text) {
  const query = new URLSearchParams({ q: text, k: RESULTS });
  const [{ results }] = await Promise.all([ask(`/v1/search?${query}`), showMap(text)]);
  title.textContent = "Nearest to your description";
  part(view, "list-hint").hidden = false;
  more.hidden = true;
  list.replaceChildren(
    ...results.map((result, at) => {
      const sure = result.confidence < 0.01 ? "under 1 %" : percent(result.confidence);
      return row(
        result,
        `${at + 1}. `,
        similarity(result.score),
        el("span", { class: "sure" }, sure),
      );
    }),
  );
  map.mark(results.map(({ id }) => id));
}

async function showAll(signal) {
  await showMap("", signal);
  title.textContent = "All adapters";
  part(view, "list-hint").hidden = true;
  list.replaceChildren();
  await nextPage("");
  listed = true;
  if (!list.children.length) list.append(el("li", { class: "hint" }, "The library is empty."));
}

async function nextPage(cursor) {
  more.hidden = true;
  const page = await ask(`/v1/library${cursor && `?cursor=${cursor}`}`);
  list.append(
    ...page.adapters.map((adapter) => {
      const score =
        adapter.score === null ? "" : `${percent(adapter.score)} of answer tokens right`;
      return row(adapter, "", el("span", { class: "hint" }, score));
    }),
  );
  more.hidden = page.next === null;
  more.onclick = () => showing(outcome, "Asking …", () => nextPage(page.next));
}

function row({ id, task }, before, ...after) {
  const link = el("a", { href: `#/library/${id}` }, task);
  return el("li", {}, el("span", {}, before, link), el("span", {}, ...after));
}

async function showMap(text, signal) {
  const query = text && `?${new URLSearchParams({ q: text })}`;
  const found = await ask(`/v1/library/map${query}`, { signal });
  map = new Map2D(
    view.querySelector(".map svg"),
    found,
    (id) => (location.hash = `#/library/${id}`),
  );
  const shown =
    found.adapters.length < found.total
      ? `${found.adapters.length} of ${found.total} adapters`
      : `${found.total} adapters`;
  const cross = found.query ? "The cross is your description. " : "";
  const explained = percent(found.explained);
  part(view, "map-caption").textContent = [
    `${shown}; tasks that are described alike lie near each other.`,
    `The two axes show ${explained} of the differences, so some that look near are not.`,
    `${cross}The list below has the same adapters.`,
  ].join(" ");
}

async function showRecord(id, signal) {
  const found = await ask(`/v1/library/${encodeURIComponent(id)}`, { signal });
  map.choose(id);
  for (const link of list.querySelectorAll("a")) {
    if (link.hash === `#/library/${id}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const use = el("button", { type: "button" }, "Use this description");
  use.addEventListener("click", () => {
    describe(found.description);
    location.hash = "#/";
  });
  const facts = [found.recipe, `rank ${found.rank}`, ...found.categories, ...found.licenses].join(
    " · ",
  );
  record.replaceChildren(
    el("h2", { tabindex: -1 }, found.task),
    el("p", {}, found.description ?? "Its task has no description."),
    el("p", { class: "hint" }, facts),
    el("p", { class: "hint" }, el("code", {}, id)),
    ...(found.description ? [el("div", { class: "buttons" }, use)] : []),
  );
  record.firstElementChild.focus();
}
