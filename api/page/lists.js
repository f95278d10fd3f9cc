/** The visitor's adapters and names. */

import { ask } from "./api.js";
import { el, part, showing } from "./dom.js";
import { expectation, verdictTag } from "./trust.js";
import { titleOf } from "./adapter.js";

const PAGE = 20;

/** Show the adapters page by page, and all names. */
export async function showAdapters(view, signal) {
  const list = part(view, "list"),
    names = part(view, "names");
  list.replaceChildren();
  const more = part(view, "more"),
    outcome = part(view, "outcome");
  const next = async (cursor) => {
    more.hidden = true;
    const query = cursor ? `&cursor=${cursor}` : "";
    const page = await ask(`/v1/adapters?limit=${PAGE}${query}`, { signal });
    const cards = await Promise.all(page.adapters.map(adapterCard));
    signal.throwIfAborted();
    list.append(...cards);
    more.hidden = page.next === null;
    more.onclick = () => showing(outcome, "Asking …", () => next(page.next));
    if (!list.children.length)
      list.append(el("li", {}, "There are none yet. ", el("a", { href: "#/" }, "Make the first.")));
  };
  await next(null);
  names.replaceChildren(...(await ask("/v1/names", { signal })).names.map(nameRow));
  if (!names.children.length) names.append(el("li", { class: "hint" }, "There are none yet."));
}

async function adapterCard(adapter) {
  const { id, generator, report, expected } = adapter;
  const link = el("a", { href: `#/adapters/${id}` }, await titleOf(adapter));
  const told = expected ? ` ${expectation(expected)}` : "";
  return el(
    "li",
    {},
    link,
    el("p", {}, verdictTag(report.verdict), told),
    el("p", { class: "hint" }, `${generator} · ${id}`),
  );
}

function nameRow({ name, current, newest }) {
  const told = current === null ? "no version is current" : `v${current} is current`;
  const link = el("a", { href: `#/names/${name}` }, name);
  return el(
    "li",
    { class: "file-row" },
    link,
    el("span", { class: "hint" }, `${told}; the newest is v${newest}`),
  );
}
