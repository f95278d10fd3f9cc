/** Names with versions: publish an adapter under one, make a version current, go back. */

import { ask, send } from "./api.js";
import { el, part, Told, working } from "./dom.js";
import { Examples } from "./examples.js";
import { showJob } from "./jobs.js";

/** Listen to the form that publishes an adapter. */
export async function startPublishing(body, adapter, signal) {
  const form = part(body, "publish"),
    place = part(body, "name");
  const suite = new Examples(form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = form.querySelector("button.primary");
    working(button, form.lastElementChild, "Publishing …", async () => {
      const name = form.elements.name.value.trim(),
        rows = suite.pairs();
      const version = await publish(name, adapter.id, rows, form.elements.name);
      await showName(place, name, signal);
      return `Published as ${version.name}@v${version.version}.`;
    });
  });
  const { names } = await ask("/v1/names");
  body.querySelector("datalist").append(...names.map(({ name }) => el("option", { value: name })));
}

async function publish(name, adapter, rows, field) {
  if (!name) {
    field.focus();
    throw new Told("The name is missing.");
  }
  const body = rows.length ? { adapter, suite: rows } : { adapter };
  return send(`/v1/names/${encodeURIComponent(name)}/versions`, body);
}

/** Show a name: its versions, which is current, and what moves it. */
export async function showName(place, name, signal) {
  const found = await ask(`/v1/names/${encodeURIComponent(name)}`);
  const outcome = part(place, "told") ?? el("div", { "data-told": true }); // it outlives a change
  const again = () => showName(place, name, signal);
  const versions = found.versions.map((version) =>
    versionRow(found, version, outcome, again, signal),
  );
  const suite = found.suite
    ? `${found.suite.rows} tests`
    : "no tests yet; publish with some, so that a version can become current";
  place.replaceChildren(
    el("p", { class: "big" }, el("a", { href: `#/names/${found.name}` }, found.name)),
    el("p", { class: "hint" }, `Suite: ${suite}.`),
    el("ul", { class: "plain" }, ...versions),
    outcome,
    ...history(found, outcome, again),
  );
}

function versionRow(found, { version, adapter }, outcome, again, signal) {
  const current = version === found.current;
  const promote = el("button", { type: "button" }, `Make v${version} current`);
  promote.addEventListener("click", () =>
    working(promote, outcome, "Asking …", async () => {
      const { id } = await send(`/v1/names/${encodeURIComponent(found.name)}/promote`, { version });
      const entry = await showJob(outcome, id, signal);
      await again();
      if (entry.action === "refused") throw new Told(moved(entry), "note");
      return moved(entry);
    }),
  );
  const link = el("a", { href: `#/adapters/${adapter}` }, `${adapter.slice(0, 11)}…`);
  const state = current ? el("span", { class: "tag accept" }, "current") : promote;
  return el("li", { class: "file-row" }, el("span", {}, `v${version} · `, link), state);
}

function history(found, outcome, again) {
  if (!found.history.length) return [];
  const back = el("button", { type: "button" }, "Go back to the version before");
  back.addEventListener("click", () =>
    working(back, outcome, "Going back …", async () => {
      const told = moved(await send(`/v1/names/${encodeURIComponent(found.name)}/rollback`));
      await again();
      return told;
    }),
  );
  const lines = found.history.map((entry) =>
    el("li", {}, `${entry.time.slice(0, 16).replace("T", " ")}: ${moved(entry)}`),
  );
  const past = el(
    "details",
    {},
    el("summary", {}, "History"),
    el("ul", { class: "plain" }, ...lines),
  );
  return [el("div", { class: "buttons" }, back), past];
}

/** An entry of a name's history in a sentence. */
function moved({ action, to, scores }) {
  const passed = scores ? `, as it passed ${scores.to} of ${scores.of} tests` : "";
  if (action === "rolled-back") return `Back to v${to}.`;
  if (action === "promoted") return `v${to} is current${passed}.`;
  const needed = Math.max(scores.from ?? 0, scores.at_least ?? 0);
  return `v${to} stays back${passed} and needs ${needed}.`;
}
