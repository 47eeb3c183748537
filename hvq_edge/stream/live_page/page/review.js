// What the line decided, one image at a time, and what a person says of it.
import { enter, explain, unlock } from "./dialogs.js";
import { change, read } from "./server.js";
import { WORDS, count, keepName, loaded, make, moment, number, plain, say, sentence, set } from "./words.js";

const LOOK_AGAIN_MS = 10_000;
const READ_ON_MS = 100;
const QUEUES = { reject: say("Rejects"), near_miss: say("Near misses"), no_decision: say("No decision"), sample: say("Sample of passes") };
const SAID = { good: say("good"), defective: say("defective"), skip: say("cannot say") };
const at = (id) => document.getElementById(id);
const page = {
  queue: null, // the one that is shown
  items: [],
  place: 0,
  judged: [], // what can be undone, the last one at the end
  kinds: [],
  heat: true,
  may: false,
  explains: false,
  busy: false,
  seen: null, // of the decision whose image is there: no other can be judged
};

const shown = () => page.items[page.place];
const address = (item) => `/api/review/${item.id}/image.jpg?heat=${page.heat ? 1 : 0}`;

async function look() {
  const state = await read("/api/review");
  page.may = state.may_change;
  page.kinds = state.kinds;
  at("lock").hidden = page.may;
  at("live").hidden = !state.live;
  page.explains = state.can_explain;
  at("explain").hidden = !page.explains;
  at("figure").classList.toggle("explains", page.explains);
  if (state.reading) {
    set(at("empty"), say("Reading the log."));
    return false;
  }
  showQueues(state.queues);
  if (!page.queue) {
    const first = state.queues.find((one) => one.images > one.judged) ?? state.queues[0];
    await open(first.name);
  } else if (page.items.length === 0) await open(page.queue);
  showButtons();
  return true;
}

function showQueues(queues) {
  const buttons = queues.map((queue) => {
    const button = make("button");
    button.type = "button";
    button.dataset.queue = queue.name;
    button.setAttribute("aria-current", queue.name === page.queue);
    button.append(make("span", "", QUEUES[queue.name]), make("b", "", count(queue.images - queue.judged)));
    const gone = queue.gone ? `, ${say("{n} without image", { n: count(queue.gone) })}` : "";
    button.append(make("small", "", `${say("{n} judged", { n: count(queue.judged) })}${gone}`));
    button.addEventListener("click", () => open(queue.name));
    return button;
  });
  const focused = document.activeElement?.dataset?.queue;
  at("queues").replaceChildren(...buttons);
  buttons.find((one) => one.dataset.queue === focused)?.focus();
}

async function open(queue) {
  page.queue = queue;
  for (const one of at("queues").children) one.setAttribute("aria-current", one.dataset.queue === queue);
  const answer = await read(`/api/review/queue?name=${queue}&judged=${at("again").checked}`);
  page.items = answer.items;
  page.place = 0;
  await view();
}

async function view() {
  const item = shown();
  askKind(false);
  showButtons();
  at("image").hidden = !item;
  at("empty").hidden = Boolean(item);
  set(at("empty"), item ? "" : say("Nothing is left to judge here."));
  at("decided").dataset.look = item?.verdict ?? "";
  set(at("word"), item ? WORDS[item.verdict] : "");
  const limit = item?.threshold === null ? "" : `, ${say("threshold {threshold}", { threshold: number(item?.threshold) })}`;
  set(at("score"), item && item.score !== null ? `${say("score {score}", { score: number(item.score) })}${limit}` : "");
  const facts = item
    ? {
        [say("Category")]: item.category,
        [say("Time")]: moment(item.time),
        [say("Camera")]: item.camera,
        [say("Frame")]: String(item.frame),
        [say("Part")]: item.part,
        [say("Image")]: item.image,
        [say("p-value")]: item.p_value === null ? null : number(item.p_value),
        [say("Reason")]: item.score === null ? sentence(item.reason) : null,
      }
    : {};
  at("facts").replaceChildren(
    ...Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", plain(value))]),
  );
  const said = item?.review;
  const kind = said?.defect ? ` (${plain(said.defect)})` : "";
  const why = said?.why ? `: ${plain(said.why)}` : "";
  set(at("said"), said ? `${say("Judged {said} by {name}, {time}", { said: `${SAID[said.judgement]}${kind}`, name: plain(said.by), time: moment(said.time) })}${why}` : "");
  if (!item) return;
  const image = await loaded(address(item));
  if (item !== shown()) return;
  page.seen = item.id;
  at("image").hidden = !image;
  at("empty").hidden = Boolean(image);
  if (image) {
    image.id = "image";
    image.alt = `${WORDS[item.verdict]}, ${say("frame {frame}", { frame: item.frame })}`;
    at("image").replaceWith(image);
  } else set(at("empty"), say("The image is no longer there."));
  showButtons();
  const next = page.items[page.place + 1];
  if (next) loaded(address(next)); // it is there when it is wanted
}

function showButtons() {
  const can = page.may && !page.busy && Boolean(shown()) && page.seen === shown().id;
  for (const name of ["good", "defective", "skip"]) at(name).disabled = !can;
  at("undo").disabled = !page.may || page.busy || page.judged.length === 0;
  at("explain").disabled = shown()?.score == null;
  at("newer").disabled = page.place <= 0;
  at("older").disabled = page.place >= page.items.length - 1;
}

function askKind(asked) {
  at("kinds").hidden = !asked;
  if (!asked) return;
  at("kind").value = "";
  at("chips").replaceChildren(
    ...page.kinds.map((kind, index) => {
      const chip = make("button", "", plain(kind));
      chip.type = "button";
      if (index < 9) chip.append(make("kbd", "", String(index + 1)));
      chip.addEventListener("click", () => judge("defective", kind));
      return chip;
    }),
  );
  at("kind").focus({ preventScroll: false });
  at("kinds").scrollIntoView({ block: "nearest" });
}

function send(item, judgement, kind, why) {
  const by = at("by").value.trim();
  return change("/api/review", { decision: item.id, judgement, by, defect: kind ?? null, why });
}

// Only one is under way at a time: a second tap must not judge the next image unseen.
async function alone(work) {
  if (page.busy) return;
  page.busy = true;
  showButtons();
  const fault = await work();
  page.busy = false;
  set(at("say"), fault);
  showButtons();
  look().catch(() => undefined);
}

function named() {
  if (at("by").value.trim()) return true;
  set(at("say"), say("Say who you are first: your name goes into the log."));
  at("by").focus();
  return false;
}

async function judge(judgement, kind = null) {
  const item = shown();
  if (!item || !page.may || page.seen !== item.id || !named()) return;
  await alone(async () => {
    const why = at("why").value.trim();
    const fault = await send(item, judgement, kind, why);
    if (fault) return fault;
    page.judged.push({ item, queue: page.queue });
    if (kind && !page.kinds.includes(kind)) page.kinds.push(kind);
    at("why").value = "";
    if (at("again").checked) {
      const now = { judgement, defect: kind, why, by: at("by").value.trim(), time: Date.now() / 1000 };
      page.items[page.place] = { ...item, review: now };
      page.place = Math.min(page.place + 1, page.items.length - 1);
    } else {
      page.items.splice(page.place, 1);
      page.place = Math.min(page.place, Math.max(page.items.length - 1, 0));
    }
    await view();
    return "";
  });
}

// Takes the last one back; where it had taken another's place, that is said again.
async function undo() {
  const last = page.judged.at(-1);
  if (!last || !page.may || !named()) return;
  await alone(async () => {
    const { item, queue } = last;
    const former = item.review;
    const fault = former
      ? await send(item, former.judgement, former.defect, former.why)
      : await send(item, "withdrawn", null, "");
    if (fault) return fault;
    page.judged.pop();
    if (queue !== page.queue) await open(queue);
    const place = page.items.findIndex((one) => one.id === item.id);
    if (place >= 0) page.items.splice(place, 1);
    page.place = place >= 0 ? place : Math.min(page.place, page.items.length);
    page.items.splice(page.place, 0, item);
    await view();
    return "";
  });
}

function turn(step) {
  const place = page.place + step;
  if (place < 0 || place >= page.items.length) return;
  page.place = place;
  view();
}

function share(found) {
  if (!found.share) return say("not known");
  const [value, low, high] = ["value", "low", "high"].map((name) => number(100 * found.share[name], 2));
  return low === high ? `${value} %` : say("{value} % ({low} to {high})", { value, low, high });
}

async function showNumbers() {
  const { together, days } = await read("/api/review/numbers");
  at("days").replaceChildren(
    ...[...days, together].map((one) => {
      const row = make("tr", one.day ? "" : "total");
      const head = make("th", "", one.day ?? say("All"));
      head.scope = "row";
      const cells = [one.rejects, one.false_rejects.judged, share(one.false_rejects), one.passes, one.misses.judged, share(one.misses)];
      row.append(head, ...cells.map((cell) => make("td", "", typeof cell === "number" ? count(cell) : cell)));
      return row;
    }),
  );
  at("numbers").showModal();
}

function why() {
  if (page.explains && shown()) explain({ decision: shown().id });
}

function defective() {
  if (page.may && shown() && named()) askKind(true);
}

const KEYS = { e: why, g: () => judge("good"), d: defective, s: () => judge("skip"), u: undo, h: () => at("heat").click(), arrowleft: () => turn(-1), arrowright: () => turn(1) };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") return askKind(false);
  if (event.target.matches("input:not([type=checkbox])")) return;
  const act = KEYS[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault(); // else the letter goes into the field that takes the focus
  act();
});
at("kind").addEventListener("keydown", (event) => {
  const kind = page.kinds[Number(event.key) - 1];
  if (at("kind").value !== "" || !/^[1-9]$/.test(event.key) || !kind) return;
  event.preventDefault();
  judge("defective", kind);
});
at("kinds").addEventListener("submit", (event) => {
  event.preventDefault();
  const kind = at("kind").value.trim().replace(/\s+/g, " ");
  if (kind) judge("defective", kind);
});
at("no-kind").addEventListener("click", () => askKind(false));
at("good").addEventListener("click", () => judge("good"));
at("defective").addEventListener("click", defective);
at("skip").addEventListener("click", () => judge("skip"));
at("undo").addEventListener("click", undo);
at("newer").addEventListener("click", () => turn(-1));
at("older").addEventListener("click", () => turn(1));
at("again").addEventListener("change", () => open(page.queue));
at("heat").addEventListener("click", () => {
  page.heat = !page.heat;
  at("heat").setAttribute("aria-pressed", page.heat);
  view();
});
keepName(at("by"));
at("by").addEventListener("change", () => set(at("say"), ""));
for (const field of ["by", "why"]) {
  at(field).addEventListener("keydown", (event) => {
    if (event.key === "Enter") at(field).blur(); // so that keys judge again
  });
}
at("show-numbers").addEventListener("click", () => showNumbers().catch(() => undefined));
at("numbers-close").addEventListener("click", () => at("numbers").close());
at("lock").addEventListener("click", unlock);
at("login").addEventListener("close", () => look().catch(() => undefined));
at("explain").addEventListener("click", why);
at("figure").addEventListener("click", (event) => {
  if (event.target === at("image")) why();
});

await enter();
for (;;) {
  let pause = LOOK_AGAIN_MS;
  try {
    if (!(await look())) pause = READ_ON_MS;
    if (at("say").dataset.lost) set(at("say"), "");
    delete at("say").dataset.lost;
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof DOMException)) console.warn(error);
    set(at("say"), say("No connection."));
    at("say").dataset.lost = "1";
  }
  await new Promise((resolve) => setTimeout(resolve, pause));
}
