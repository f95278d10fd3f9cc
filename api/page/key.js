/** The dialog that asks for a key of the service. */

import { hasKey, setKey } from "./api.js";
import { part, tell } from "./dom.js";

const dialog = document.getElementById("key-dialog");
const field = dialog.querySelector("input");
const button = document.getElementById("key-button");
let asked = null;

/** Ask for a key; whether there is one. What the service said of the last one is shown. */
export function askForKey(refusal) {
  asked ??= new Promise((resolve) => {
    tell(part(dialog, "outcome"), "error", hasKey() ? refusal : "");
    setKey("");
    field.value = "";
    dialog.returnValue = "";
    dialog.showModal();
    field.focus();
    dialog.addEventListener("close", () => resolve(entered()), { once: true });
  }).finally(() => (asked = null));
  return asked;
}

/** Listen to the button that enters a key, or forgets it. */
export function startKeys() {
  button.addEventListener("click", async () => {
    if (hasKey()) setKey("");
    else if (!(await askForKey(""))) return;
    location.reload();
  });
  showButton();
}

function entered() {
  const text = field.value.trim();
  field.value = "";
  if (dialog.returnValue === "use") setKey(text);
  showButton(true);
  return hasKey();
}

/** The button is there once a key was asked for. */
function showButton(wanted = hasKey()) {
  button.hidden = !wanted;
  button.textContent = hasKey() ? "Forget the key" : "Enter a key";
}
