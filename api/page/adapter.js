/** One adapter: what to expect of it, answers, more training, names, its files. */

import { ask, download, send } from "./api.js";
import { copy, el, number, part, showing, working } from "./dom.js";
import { Examples } from "./examples.js";
import { startPublishing } from "./names.js";
import { startTries } from "./tries.js";
import { showTrust } from "./trust.js";

/** Show the adapter of an id; its title. Throws Problem. */
export async function showAdapter(view, id, signal) {
  const adapter = await ask(`/v1/adapters/${encodeURIComponent(id)}`, { signal });
  const title = await titleOf(adapter);
  signal.throwIfAborted();
  const body = part(view, "body");
  body.replaceChildren(copy("adapter-body"));
  showTrust(body, adapter, signal);
  startTries(body, adapter, signal);
  startRefining(body, adapter);
  showFiles(body, adapter);
  const names = body.querySelector("[data-publish]").lastElementChild;
  showing(names, "", () => startPublishing(body, adapter, signal));
  return title;
}

/** What an adapter is for, as its description or, without one, its id says. */
export async function titleOf(adapter) {
  const { usage, files, id } = adapter;
  if (usage?.mode === "prompted")
    return usage.template
      .slice(0, usage.template.lastIndexOf("{input}"))
      .split("\n\nInput: ")[0] // without the examples that it may show
      .trim();
  const provenance = files["provenance.json"];
  const { description } = provenance ? await ask(provenance.url) : {};
  return description || `Adapter ${id.slice(0, 11)}…`;
}

function startRefining(body, adapter) {
  const form = part(body, "refine"),
    examples = new Examples(form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = form.querySelector("button.primary");
    working(button, form.lastElementChild, "Asking …", async () => {
      const asked = { examples: examples.pairs(), steps: number(form.elements.steps.value) };
      const job = await send(`/v1/adapters/${encodeURIComponent(adapter.id)}/refine`, asked);
      location.hash = `#/jobs/${job.id}`;
    });
  });
}

function showFiles(body, adapter) {
  const { id, files, usage } = adapter;
  const card = part(body, "archive").closest("section"),
    outcome = part(card, "outcome");
  const archive = part(card, "archive"),
    remove = part(card, "delete");
  archive.addEventListener("click", () =>
    working(archive, outcome, "Fetching the files …", () =>
      download(`/v1/adapters/${encodeURIComponent(id)}/archive`, `${id}.tar`),
    ),
  );
  part(card, "files").append(
    ...Object.entries(files).map(([name, file]) => fileRow(name, file, outcome)),
  );
  part(card, "template").textContent = usage?.template ?? "{input}";
  part(card, "model").textContent = `generated/${id}`;
  remove.addEventListener("click", () => {
    if (!confirm("Delete this adapter? Its files cannot be had again, unless it is made again."))
      return;
    working(remove, outcome, "Deleting …", async () => {
      await ask(`/v1/adapters/${encodeURIComponent(id)}`, { method: "DELETE" });
      location.hash = "#/adapters";
    });
  });
}

function fileRow(name, { url, bytes, sha256 }, outcome) {
  const button = el("button", { type: "button", class: "link" }, name);
  button.addEventListener("click", () =>
    working(button, outcome, `Fetching ${name} …`, () => download(url, name)),
  );
  const digest = el("code", { title: `SHA-256 ${sha256}` }, `sha256 ${sha256.slice(0, 12)}…`);
  return el(
    "li",
    { class: "file-row" },
    button,
    el("span", { class: "hint" }, `${bytes.toLocaleString("en")} bytes · `, digest),
  );
}
