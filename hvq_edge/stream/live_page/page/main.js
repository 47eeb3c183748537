// Asks the inspector for its state twice a second and hands it to the parts of the page.
import { Camera } from "./camera.js";
import { Parts } from "./parts.js";
import { Rejects } from "./rejects.js";
import { enter, lock, unlock } from "./dialogs.js";
import { change, read } from "./server.js";
import { showState } from "./status.js";
import { Threshold } from "./threshold.js";
import { say, set } from "./words.js";

const PAUSE_MS = 500;
const REMEMBERED = 2000;
const FAILURES = 2; // in a row, before the page says so

const at = (id) => document.getElementById(id);
const page = {
  run: "",
  sequence: 0,
  records: [],
  cameras: [],
  heat: true,
  online: false,
  interval: 100,
  state: null,
  announcedAt: -Infinity,
};
const rejects = new Rejects(page);
const parts = new Parts(page, rejects);
const threshold = new Threshold(page);
let failures = 0;

async function update() {
  const state = await read("/api/state");
  if (state.run !== page.run) startAgain(state);
  page.state = state;
  page.interval = state.image_interval_ms;
  if (state.sequence > page.sequence) {
    const news = await read(`/api/decisions?after=${page.sequence}`);
    if (news.run === page.run) {
      page.records.push(...news.decisions);
      page.records.splice(0, page.records.length - REMEMBERED);
      page.sequence = news.sequence;
    }
  }
  rejects.update(state); // its images may take longer than all else
  setCameras(state);
  showState(state);
  showActions(state);
  threshold.update(state);
  parts.update();
}

function startAgain(state) {
  Object.assign(page, { run: state.run, sequence: 0, records: [] });
  rejects.forget();
  threshold.forget();
}

function setCameras(state) {
  const names = state.cameras.map((camera) => camera.name);
  if (page.cameras.length !== names.length) {
    for (const camera of page.cameras) camera.remove();
    page.cameras = names.map((name, index) => new Camera(page, name, index));
    at("cameras").dataset.count = names.length;
    at("no-cameras").hidden = names.length > 0;
    set(at("no-cameras"), say("The inspector has no camera."));
  }
  page.cameras.forEach((camera, index) => camera.update(state.cameras[index], state.paused));
}

function showActions(state) {
  set(at("pause"), state.paused ? say("Resume") : say("Pause"));
  at("pause").disabled = !state.may_change;
  at("pause").title = state.may_change ? "" : say("Unlock first");
  at("review").hidden = !state.can_review;
  set(at("lock"), state.may_change ? say("Lock") : say("Unlock"));
  at("choice").hidden = state.category === null;
  if (state.category === null) return;
  const select = at("chosen");
  if (select.options.length !== state.category.names.length) {
    select.replaceChildren(...state.category.names.map((name) => new Option(name, name)));
  }
  select.disabled = !state.may_change;
  if (document.activeElement !== select) select.value = state.category.current;
}

function setOnline(online) {
  page.online = online;
  document.body.classList.toggle("offline", !online);
  if (!online) {
    set(at("health"), say("No connection"));
    at("health").dataset.look = "reject";
    for (const camera of page.cameras) camera.loseConnection();
  }
}

async function forever() {
  for (;;) {
    try {
      await update();
      failures = 0;
      if (!page.online) setOnline(true);
    } catch (error) {
      failures += 1;
      if (!(error instanceof TypeError || error instanceof DOMException)) console.warn(error);
      if (failures === FAILURES) setOnline(false);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

at("pause").addEventListener("click", async () => {
  at("pause").disabled = true;
  await change("/api/pause", { paused: !page.state.paused });
});
at("heat").addEventListener("click", () => {
  page.heat = !page.heat;
  at("heat").setAttribute("aria-pressed", page.heat);
  at("cameras").classList.toggle("plain", !page.heat);
});
at("chosen").addEventListener("change", () => {
  change("/api/category", { category: at("chosen").value });
});
at("lock").addEventListener("click", () => {
  if (page.state?.may_change) lock();
  else unlock();
});
document.addEventListener("keydown", (event) => {
  const { target } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.key.toLowerCase() !== "e" || target.matches("input, select, textarea")) return;
  const camera = page.cameras.find((one) => one.box.matches(":hover, :focus-within")) ?? page.cameras[0];
  camera?.explain();
});

await enter();
forever();
