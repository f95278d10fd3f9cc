/** One's own inputs, answered by the base model and by the adapter, side by side. */

import { ask, send } from "./api.js";
import { el, part, Told, working } from "./dom.js";

const TOKENS = 64; // the most of an answer, as where adapters are measured

/** Listen to the form that asks both. */
export function startTries(body, adapter, signal) {
  const form = part(body, "try"),
    place = part(body, "answers");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const inputs = form.elements.inputs.value.split("\n").filter((line) => line.trim());
    const told = "Asking the base model; the first answer waits until it is loaded …";
    working(form.querySelector("button"), part(form, "outcome"), told, () =>
      askBoth(inputs, adapter, place, signal),
    );
  });
}

async function askBoth(inputs, adapter, place, signal) {
  if (!inputs.length) throw new Told("There is no input.");
  const models = [await baseOf(adapter), `generated/${adapter.id}`];
  const rows = inputs.map((input) => rowOf(input));
  const titles = ["Input", "Base model", "With the adapter"];
  const head = el(
    "thead",
    {},
    el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title))),
  );
  place.replaceChildren(
    el("table", { class: "answers" }, head, el("tbody", {}, ...rows.map(({ row }) => row))),
  );
  for (const { input, cells } of rows) {
    for (const [at, model] of models.entries()) {
      cells[at].replaceChildren(
        (await answer(model, adapter, input, signal)) ||
          el("span", { class: "waiting" }, "(nothing)"),
      );
    }
  }
  return inputs.length === 1 ? "It is answered." : `${inputs.length} inputs are answered.`;
}

function rowOf(input) {
  const dots = () => el("span", { class: "waiting" }, "…");
  const cell = (label) => el("td", { "data-label": label }, dots());
  const cells = [cell("Base model"), cell("With the adapter")];
  return {
    input,
    cells,
    row: el("tr", {}, el("th", { scope: "row", "data-label": "Input" }, input), ...cells),
  };
}

/** The name by which completions ask the base model of an adapter. */
async function baseOf(adapter) {
  const { base_models: bases } = await ask("/v1/base-models");
  return bases.find((base) => base.base_model === adapter.base_model)?.name ?? adapter.base_model;
}

async function answer(model, adapter, input, signal) {
  const messages = [{ role: "user", content: prompt(adapter, input) }];
  const body = { model, messages, temperature: 0, max_tokens: TOKENS };
  const { choices } = await send("/v1/chat/completions", body, { signal });
  return choices[0].message.content;
}

/** The prompt of an adapter for an input; a description in it may have braces of its own. */
export function prompt({ usage }, input) {
  const template = usage?.template ?? "{input}",
    at = template.lastIndexOf("{input}");
  return template.slice(0, at) + input + template.slice(at + "{input}".length);
}
