// Sends an image that somebody drops to /predict and shows the overlay and the verdict.
import { login, refused, tokenOfAddress } from "./server.js";
import { WORDS, number, say, sentence, set } from "./words.js";

const PATIENCE_MS = 60_000; // a large image over a slow network
const at = (id) => document.getElementById(id);
const given = tokenOfAddress();
const loggedIn = given ? login(given) : ""; // why not; empty when it is

async function judge(file) {
  at("drop").classList.add("busy");
  await loggedIn;
  set(at("fault"), "");
  at("verdict").hidden = true;
  try {
    const answer = await fetch("/predict?as=overlay", {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: file,
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.status === 401) location.assign("/login");
    else if (answer.ok) await show(answer, file.name);
    else {
      const { cause, next_step: next } = await answer.json();
      set(at("fault"), refused(cause, next));
    }
  } catch {
    set(at("fault"), say("The server does not answer."));
  } finally {
    at("drop").classList.remove("busy");
  }
}

async function show(answer, name) {
  const { verdict, score, threshold, category, reason } = JSON.parse(answer.headers.get("x-prediction"));
  URL.revokeObjectURL(at("overlay").src);
  at("overlay").src = URL.createObjectURL(await answer.blob());
  at("overlay").alt = `${name}: ${WORDS[verdict]}`;
  at("verdict").dataset.look = verdict;
  set(at("word"), WORDS[verdict]);
  const measured = score === null || threshold === null ? sentence(reason) : say("score {score}, threshold {threshold}", { score: number(score), threshold: number(threshold) });
  set(at("facts"), [name, category, measured].filter(Boolean).join(" · "));
  at("verdict").hidden = false;
}

at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  at("file").value = ""; // the same file may be chosen again
  if (file) judge(file);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  // On the whole page: an image that misses the field must not replace the page.
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) judge(file);
  });
}

set(at("fault"), await loggedIn);
