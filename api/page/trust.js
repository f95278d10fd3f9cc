/** How far to trust an adapter, and why it was made as it was. */

import { send, sentence } from "./api.js";
import { el, part, percent, shape, working } from "./dom.js";
import { showJob } from "./jobs.js";

const VERDICTS = {
  accept: "Checks passed",
  warn: "Passed with a warning",
  refuse: "Refused",
};
// Halves go to the even number, as where the service writes the same into a finding.
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0, roundingMode: "halfEven" });
const SEVERITIES = { info: "info", warn: "warning", refuse: "refused" };

/** Fill the cards on trust and on the choice, and the line of facts. */
export function showTrust(body, adapter, signal) {
  part(body, "facts").append(...facts(adapter));
  showExpected(part(body, "expected"), adapter);
  showFindings(part(body, "findings"), adapter.report.findings);
  showChoice(body, adapter.chosen);
  const button = part(body, "verify"),
    place = part(body, "verifying");
  button.addEventListener("click", () => {
    working(button, place, "Asking …", () => verify(adapter.id, body, place, signal));
  });
}

/** A verdict in words. */
export function verdictTag(verdict) {
  return el("span", { class: `tag ${verdict}` }, VERDICTS[verdict]);
}

/** What is expected of 100 answers, in a sentence. */
export function expectation({ score, low, high }) {
  const [worst, best, guess] = [low, high, score].map((of100) => WHOLE.format(of100));
  return `Expect ${worst} to ${best} of 100 answers to be exactly right; ${guess} at best guess.`;
}

function facts({ id, generator, chosen, base_model, rank, report, start, refined }) {
  const made = generator === chosen.strategy ? generator : `${generator}: ${chosen.strategy}`;
  const trained = refined ? ` · trained ${refined.steps} steps` : "";
  const line = ` ${made} · rank ${rank} · for ${base_model}${trained}`;
  const from = start
    ? [" · from ", el("a", { href: `#/adapters/${start}` }, `${start.slice(0, 11)}…`)]
    : [];
  return [verdictTag(report.verdict), line, el("br"), el("code", {}, id), ...from];
}

function showExpected(place, { expected, refined }) {
  if (expected) {
    place.append(el("p", { class: "big" }, expectation(expected)), scale(expected));
    place.append(el("p", { class: "hint" }, `Estimated ${expected.calibration}.`));
  } else {
    place.append(
      el(
        "p",
        {},
        "Nothing like it was measured, so nothing is known of how often it will be right.",
      ),
    );
  }
  const held = refined?.held_out;
  if (held) {
    const told = `${held.right} of ${held.of} examples, held back from training, were answered right.`;
    place.append(el("p", {}, told));
  }
}

/** The range on a line from 0 to 100. */
function scale(expected) {
  const page = document.querySelector("svg");
  const drawing = document.createElementNS(page.namespaceURI, "svg");
  drawing.setAttribute("viewBox", "0 0 320 34");
  drawing.setAttribute("class", "scale");
  drawing.setAttribute("aria-hidden", "true"); // the sentence above says the same
  const at = (score) => 10 + 3 * score;
  shape(drawing, "rect", { class: "rail", x: at(0), y: 8, width: 300, height: 6, rx: 3 });
  const width = Math.max(3 * (expected.high - expected.low), 2);
  shape(drawing, "rect", { class: "range", x: at(expected.low), y: 5, width, height: 12, rx: 4 });
  shape(drawing, "circle", { class: "best", cx: at(expected.score), cy: 11, r: 5 });
  for (const mark of [0, 50, 100]) {
    shape(
      drawing,
      "text",
      { x: at(mark), y: 31, "text-anchor": { 0: "start", 50: "middle", 100: "end" }[mark] },
      String(mark),
    );
  }
  return drawing;
}

/** Findings, but for the one that says no more than the expectation above them. */
function showFindings(list, findings) {
  const shown = findings.filter(({ hook, severity }) => hook !== "expected" || severity !== "info");
  list.replaceChildren(
    ...shown.map(({ severity, hook, message }) =>
      el(
        "li",
        {},
        el("span", { class: `tag ${severity}` }, SEVERITIES[severity]),
        el("b", {}, `${hook}: `),
        sentence(message),
      ),
    ),
  );
  if (!shown.length) list.append(el("li", { class: "hint" }, "The checks found nothing."));
}

function showChoice(body, { reason, neighbours, predicted_recovery }) {
  part(body, "reason").textContent = sentence(reason);
  const place = part(body, "neighbours");
  if (predicted_recovery !== null) {
    const share = percent(predicted_recovery);
    const told = `It is expected to gain ${share} of what training on the task's own data would.`;
    place.append(el("p", {}, told));
  }
  if (!neighbours.length) return;
  place.append(
    el("p", { class: "hint" }, "The nearest tasks of the library, by their descriptions:"),
  );
  place.append(
    el(
      "ul",
      { class: "plain" },
      ...neighbours.map((neighbour) =>
        el(
          "li",
          { class: "file-row" },
          el("a", { href: `#/library/${neighbour.id}` }, neighbour.task),
          similarity(neighbour.similarity),
        ),
      ),
    ),
  );
}

/** A similarity as a bar and a number. */
export function similarity(value) {
  const meter = el("meter", { min: 0, max: 1, value: Math.max(value, 0), "aria-hidden": "true" });
  return el("span", {}, meter, ` ${value.toFixed(2)}`);
}

/** Let the slower hooks look at the adapter; their findings take the place of the quick ones'. */
async function verify(id, body, place, signal) {
  const { id: job } = await send(`/v1/adapters/${encodeURIComponent(id)}/verify`);
  const { verdict, findings } = await showJob(place, job, signal);
  part(body, "facts").firstElementChild.replaceWith(verdictTag(verdict));
  showFindings(part(body, "findings"), findings);
  return "All checks have run.";
}
