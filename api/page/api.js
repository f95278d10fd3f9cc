/** The service's REST API, with a key where it takes one. */

import { Told } from "./dom.js";

const STORED = "lorasmith-key";
const ENDED = ["done", "failed", "interrupted", "cancelled"];
const RETRY_SECONDS = 2;

let key = read();
let askForKey = async () => false;
let onWaiting = () => {};
let waiting = 0; // requests that wait until the service is ready

/** What the service answered instead of a result: its sentence, its code and its status. */
export class Problem extends Told {
  constructor(detail, code, status) {
    super(sentence(detail));
    this.code = code;
    this.status = status;
  }
}

/**
 * Whom to ask for a key (a sentence in, whether there is one out), and whom to tell why requests
 * wait ("" once none does).
 */
export function connect(asking, telling) {
  askForKey = asking;
  onWaiting = telling;
}

/** The key of this tab; kept in memory where the tab may keep nothing. */
export function setKey(text) {
  key = text;
  try {
    if (text) sessionStorage.setItem(STORED, text);
    else sessionStorage.removeItem(STORED);
  } catch {
    /* storage is switched off */
  }
}

export function hasKey() {
  return Boolean(key);
}

/** The JSON answer to a request. Throws Problem. */
export async function ask(path, options = {}) {
  const response = await fetched(path, options);
  return response.status === 204 ? null : response.json();
}

/** The answer to a request with a JSON body. */
export function send(path, body, options = {}) {
  return ask(path, { ...options, method: "POST", body });
}

/** Keep what lies at a path as a file of the visitor's. */
export async function download(path, name) {
  const content = await (await fetched(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * Follow a job to its end; its last state.
 * @param onJob gets each state.
 * @param onLost is called when the connection is lost, before it is tried again.
 */
export async function follow(id, onJob, onLost, signal) {
  for (;;) {
    try {
      const response = await fetched(`/v1/jobs/${encodeURIComponent(id)}/events`, { signal });
      const last = await lastOf(response.body, onJob);
      if (last && ENDED.includes(last.state)) return last;
    } catch (error) {
      if (error.code !== "unreachable" || signal.aborted) throw error;
      onLost(error);
    }
    await pause(RETRY_SECONDS, signal);
  }
}

/** A sentence of the API's as one of a page. */
export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}

/** An answer of success; waits while the service is not ready, and asks for a key where one is needed. */
async function fetched(path, options = {}) {
  for (;;) {
    const used = key;
    const response = await attempt(path, options, used);
    if (response.ok) {
      return response;
    }
    const problem = await problemOf(response);
    if (problem.code === "not-ready") {
      const seconds = Number(response.headers.get("Retry-After"));
      await ready(problem.message, seconds, options.signal);
    } else if (problem.status !== 401 || !(used !== key || (await askForKey(problem.message)))) {
      throw problem;
    }
  }
}

/** Wait a while for a service that is not ready: it loads, or is about to end, as `why` says. */
async function ready(why, seconds, signal) {
  waiting += 1;
  onWaiting(why);
  try {
    await pause(seconds || RETRY_SECONDS, signal);
  } finally {
    waiting -= 1;
    onWaiting(waiting > 0 ? why : "");
  }
}

async function attempt(path, { method = "GET", body, signal }, used) {
  const headers = {};
  if (used) headers.Authorization = `Bearer ${used}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method, headers, signal, body: JSON.stringify(body) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("the service does not answer", "unreachable", 0);
  }
}

async function problemOf(response) {
  try {
    const { detail, code } = await response.json();
    return new Problem(detail, code, response.status);
  } catch {
    return new Problem(`the answer was ${response.status}`, "unknown", response.status);
  }
}

/** The last job of a stream of events. */
async function lastOf(body, onJob) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "",
    last = null;
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return last;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data:"));
      if (data) onJob((last = JSON.parse(data.slice(5))));
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

function read() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null;
  }
}
