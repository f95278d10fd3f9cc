/** The form that makes an adapter of a description and examples. */

import { ask, send } from "./api.js";
import { el, number, part, percent, working } from "./dom.js";
import { Examples } from "./examples.js";

const SAMPLE = {
  description: "Copy the order number out of the message and write nothing else.",
  examples: [
    ["Hi, order A-4471 has not arrived.", "A-4471"],
    ["Please cancel number B-0093, thanks.", "B-0093"],
    ["What is the status of K-5512?", "K-5512"],
    ["I got the wrong colour in A-2210.", "A-2210"],
    ["M-7781 is missing one item.", "M-7781"],
  ],
};
const AUTO = [
  "Chooses by what was measured and says why:",
  "an adapter of the library, the one of all tasks, or a generated one.",
].join(" ");
const NEEDS = {
  description: "a description",
  examples: "examples",
  library: "the library",
  base: "the base model",
};

const form = document.getElementById("make");
const { description, generator, mode, base, refine, writeInputs, rank, seed } = form.elements;
const examples = new Examples(form);
let generators = [];

/** Fill the form's choices, and listen. */
export async function start() {
  part(form, "sample").addEventListener("click", () => {
    description.value = SAMPLE.description;
    examples.fill(SAMPLE.examples.map(([input, output]) => ({ input, output })));
    description.focus();
  });
  generator.addEventListener("change", hint);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = form.querySelector("button.primary");
    const told = "Making the adapter …";
    working(button, form.lastElementChild, told, make);
  });
  hint();
  const [offers, bases] = await Promise.all([ask("/v1/generators"), ask("/v1/base-models")]);
  generators = offers.generators;
  const others = generators.filter((offer) => !offer.default);
  generator.append(...others.map(({ name }) => el("option", { value: name }, name)));
  base.append(...bases.base_models.map(({ name }) => el("option", { value: name }, name)));
}

/** Put a description into the form. */
export function describe(text) {
  description.value = text;
}

/** Ask for the adapter, and go to it, or to the job that trains it. */
async function make() {
  const pairs = examples.pairs();
  const body = {
    description: description.value.trim() || undefined,
    examples: pairs.length ? pairs : undefined,
    generator: generator.value || undefined,
    mode: mode.value || undefined,
    base: base.value || undefined,
    refine: number(refine.value),
    write_inputs: number(writeInputs.value),
    rank: number(rank.value),
    seed: number(seed.value),
  };
  try {
    const made = await send("/v1/adapters", body);
    location.hash = "state" in made ? `#/jobs/${made.id}` : `#/adapters/${made.id}`;
  } catch (problem) {
    if (problem.code === "invalid-description") description.focus();
    throw problem;
  }
}

/** Say what is known of the chosen generator. */
function hint() {
  part(form, "generator-hint").textContent = about(
    generators.find(({ name }) => name === generator.value),
  );
}

function about(offer) {
  if (!offer) return AUTO;
  const needs = offer.needs.map((name) => NEEDS[name]).join(" and ");
  const said = [needs ? `Needs ${needs}.` : ""];
  if (offer.held_out) {
    const { bare, prompted, tasks } = offer.held_out;
    const scores = [
      [prompted, "with the description in the prompt"],
      [bare, "with the input alone"],
    ];
    const told = scores
      .filter(([score]) => score !== null)
      .map(([score, how]) => `${percent(score)} ${how}`);
    said.push(`On ${tasks} tasks that it was not trained on, its answers overlap with the right`);
    said.push(`ones (ROUGE-L) by ${told.join(", ")}.`);
  }
  if (offer.seconds) said.push(`About ${offer.seconds.toFixed(2)} s an adapter.`);
  return said.join(" ").trim();
}
