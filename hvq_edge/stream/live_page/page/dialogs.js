// What every page of the inspector has: the login, and why a decision scores what it scores.
import { change, login, sent, tokenOfAddress } from "./server.js";
import { say, set } from "./words.js";

const PATIENCE_MS = 15_000; // others may be explained first
let asked = 0;
const at = (id) => document.getElementById(id);

at("login-cancel").addEventListener("click", () => at("login").close());
at("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fault = await login(at("token").value);
  set(at("login-fault"), fault);
  if (fault) return;
  at("token").value = "";
  at("login").close();
});

// With the token of the address, if there is one: whoever has that needs no dialog.
export async function enter() {
  const given = tokenOfAddress();
  if (given) await login(given);
}

export function unlock() {
  at("login").showModal();
}

export function lock() {
  return change("/api/logout", {});
}

// The decision is a number of the live page, or of a row of the log.
export async function explain(decision) {
  const turn = ++asked;
  at("explanation").hidden = true;
  set(at("explained-say"), say("Being made."));
  if (!at("explained").open) at("explained").showModal();
  const { fault, answer } = await sent("/api/explain", decision, PATIENCE_MS);
  if (turn !== asked) return; // another was asked for meanwhile: the dialog is of that one
  set(at("explained-say"), fault);
  if (fault) return;
  // A new frame each time: one that is shown while its page changes may keep the size of a hidden one.
  const frame = at("explanation").cloneNode();
  frame.src = answer.page;
  frame.hidden = false;
  at("explanation").replaceWith(frame);
}

at("explained-close").addEventListener("click", () => at("explained").close());
at("explained").addEventListener("click", (event) => {
  if (event.target === at("explained")) at("explained").close();
});
