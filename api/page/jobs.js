/** Work in the background, as it goes on: its progress, and a way to cancel it. */

import { ask, follow, sentence } from "./api.js";
import { el, percent, Told, working } from "./dom.js";

const TOLD = { queued: "Waiting for its turn …", running: "Working …", done: "Done." };
const ENDS = {
  cancelled: "It was cancelled, and nothing was stored.",
  interrupted: "The service stopped meanwhile; ask again.",
  failed: "It failed.",
};

/**
 * Show a job until it ends; its result.
 * Throws Problem for one that cannot be seen, Told for one that ended otherwise than done.
 */
export async function showJob(place, id, signal) {
  const state = el("p", { role: "status" }, "Asking …");
  const bar = el("progress", { max: 1, "aria-label": "Progress" });
  const share = el("span", { class: "hint" });
  const outcome = el("div");
  const cancel = el("button", { type: "button" }, "Cancel");
  cancel.addEventListener("click", () =>
    working(cancel, outcome, "Cancelling …", () => cancelled(id)),
  );
  const buttons = el("div", { class: "buttons" }, cancel);
  place.replaceChildren(el("div", { class: "job" }, state, bar, share, buttons, outcome));

  const onJob = (job) => {
    tellOnce(state, TOLD[job.state] ?? "");
    if (job.state === "queued") bar.removeAttribute("value");
    else bar.value = job.progress;
    share.textContent = job.state === "queued" ? "" : percent(job.progress);
  };
  const onLost = (problem) => tellOnce(state, `${problem.message} Trying again …`);
  const job = await follow(id, onJob, onLost, signal);
  if (job.state === "done") return job.result;
  const told = job.error ? sentence(job.error) : ENDS[job.state];
  throw new Told(told, job.state === "cancelled" ? "note" : "error");
}

/** Change a live region only where it says something else, as each change is read out. */
function tellOnce(state, text) {
  if (state.textContent !== text) state.textContent = text;
}

async function cancelled(id) {
  await ask(`/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
}
