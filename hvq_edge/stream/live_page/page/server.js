// Requests to the inspector. Every answer is awaited for a few seconds at most.
import { say, sentence } from "./words.js";

const PATIENCE_MS = 5000;

export async function ask(path, options = {}) {
  return fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS), ...options });
}

export async function read(path) {
  const answer = await ask(path);
  if (answer.status === 401) location.replace("/login");
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// Returns what was answered, and why it was refused; that is empty when it is done.
export async function sent(path, body, patience = PATIENCE_MS) {
  try {
    const answer = await ask(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(patience),
    });
    const said = await answer.json();
    if (answer.ok) return { fault: "", answer: said };
    return { fault: refused(said.cause, said.next_step) };
  } catch {
    return { fault: say("The inspector does not answer.") };
  }
}

export function refused(cause, next) {
  return next ? say("{cause} Next: {next}.", { cause: sentence(cause), next: sentence(next) }) : sentence(cause);
}

export async function change(path, body) {
  return (await sent(path, body)).fault;
}

export function login(token) {
  return change("/api/login", { token });
}

// The address printed at the start ends in #token=...; it is taken out of the history at once.
export function tokenOfAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname);
  return given;
}
