/** The editor of examples: rows of an input and its output, typed, pasted or from a file. */

import { copy, part, tell, Told } from "./dom.js";

/** The examples of one form. */
export class Examples {
  constructor(root) {
    this.root = part(root, "examples");
    this.rows = this.root.querySelector(".rows");
    this.outcome = part(this.root, "outcome");
    this.many = part(this.root, "many");
    part(this.root, "add").addEventListener("click", () => this.add().focus());
    part(this.root, "add-many").addEventListener("click", () => this.#addMany());
    part(this.root, "file").addEventListener("change", (event) => this.#read(event.target));
  }

  /** Another row; its field for the input. */
  add({ input = "", output = "" } = {}) {
    this.rows.append(copy("example-row"));
    const row = this.rows.lastElementChild;
    part(row, "input").value = input;
    part(row, "output").value = output;
    part(row, "remove").addEventListener("click", () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      this.#number();
      (next ? part(next, "remove") : part(this.root, "add")).focus();
    });
    this.#number();
    return part(row, "input");
  }

  /** Other examples in place of those that are there. */
  fill(pairs) {
    this.rows.replaceChildren();
    pairs.forEach((pair) => this.add(pair));
  }

  /** The examples; rows without a word are left out. Throws Told for a half row. */
  pairs() {
    const found = [];
    [...this.rows.children].forEach((row, position) => {
      const pair = { input: part(row, "input").value, output: part(row, "output").value };
      const lacking = Object.keys(pair).filter((name) => !pair[name].trim());
      if (lacking.length === 1) throw new Told(`Example ${position + 1} has no ${lacking[0]}.`);
      if (lacking.length === 0) found.push(pair);
    });
    return found;
  }

  #number() {
    [...this.rows.children].forEach((row, position) => {
      row.setAttribute("aria-label", `Example ${position + 1}`);
      part(row, "remove").setAttribute("aria-label", `Remove example ${position + 1}`);
    });
  }

  #addMany() {
    try {
      const pairs = parsed(this.many.value);
      pairs.forEach((pair) => this.add(pair));
      this.many.value = "";
      tell(this.outcome, "done", `${pairs.length} added.`);
    } catch (error) {
      tell(this.outcome, "error", error.message);
    }
  }

  async #read(field) {
    if (field.files.length) this.many.value = await field.files[0].text();
    field.value = "";
    this.#addMany();
  }
}

/** Pairs in lines of text: JSON, or input, tab, output. */
export function parsed(text) {
  const lines = text.split(/\r?\n/).map((line, at) => [line, at + 1]);
  const pairs = lines.filter(([line]) => line.trim()).map(([line, at]) => pairIn(line, at));
  if (!pairs.length) throw new Told("There is no line to add.");
  return pairs;
}

function pairIn(line, at) {
  if (!line.trimStart().startsWith("{")) {
    const [input, output, ...more] = line.split("\t");
    if (output === undefined || more.length) throw new Told(`Line ${at} needs one tab.`);
    return { input, output };
  }
  try {
    const { input, output } = JSON.parse(line);
    if (typeof input === "string" && typeof output === "string") return { input, output };
  } catch {
    /* told below */
  }
  throw new Told(`Line ${at} is not {"input": "…", "output": "…"}.`);
}
