/** Elements, and what each action shows: that it works, that it failed and why, that it is done. */

/** What an action ended with in place of a result: a sentence to show, as an error or a note. */
export class Told extends Error {
  constructor(text, kind = "error") {
    super(text);
    this.kind = kind;
  }
}

/** An element with attributes (functions are listeners) and children. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** An element of a drawing, of the namespace of the drawing that it goes into. */
export function shape(drawing, tag, attributes = {}, ...children) {
  const made = document.createElementNS(drawing.namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  drawing.append(made);
  return made;
}

/** The element inside another that has a data attribute: part(view, "list") has data-list. */
export function part(root, name) {
  return root.querySelector(`[data-${name}]`);
}

/** A copy of a template's content. */
export function copy(id) {
  return document.getElementById(id).content.cloneNode(true);
}

/** Show one line in a place for outcomes: a note, an error or what is done. */
export function tell(place, kind, text) {
  const role = kind === "error" ? "alert" : "status";
  place.replaceChildren(...(text ? [el("p", { class: kind, role }, text)] : []));
}

/**
 * Do what a button is for, once at a time, and show in `place` how it goes.
 * @param told while it works.
 * @param task what is done; the sentence that it returns is shown at its end.
 */
export async function working(button, place, told, task) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await showing(place, told, task);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** The same without a button. */
export async function showing(place, told, task) {
  tell(place, "note", told);
  try {
    tell(place, "done", await task());
  } catch (error) {
    if (error.name === "AbortError") return tell(place, "note", "");
    tell(place, error.kind ?? "error", error.message);
    if (!(error instanceof Told)) console.error(error);
  }
}

/** What was typed into a field for numbers: nothing, a number, or the text as it is. */
export function number(text) {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  return Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
}

/** A share as "42 %". */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}
