// Counts, alarms, cameras, outputs and latencies.
import { count, make, many, number, say, sentence, set, shape, span } from "./words.js";

const STAGES = { waiting: say("Waiting"), checks: say("Image checks"), engine: say("Model"), decision: say("Decision"), total: say("Total") };
const at = (id) => document.getElementById(id);

export function showState(state) {
  const names = state.cameras.map((camera) => camera.name).join(", ");
  set(at("title"), names);
  document.title = names ? `${names} – hvq-edge` : "hvq-edge";
  set(at("about"), state.title);
  showHealth(state);
  showCounts(state.counts);
  showParts(state);
  showStages(state.stages);
  set(at("uptime"), say("Running for {span}.", { span: span(state.seconds) }));
}

function showHealth({ health, paused }) {
  const pill = at("health");
  const problems = health.failing.length + health.degraded.length;
  const words = many(problems, "{n} problem", "{n} problems");
  set(pill, problems ? words : paused ? say("Paused") : say("Working"));
  pill.dataset.look = health.failing.length ? "reject" : problems || paused ? "no_decision" : "pass";
  const alarms = [...health.failing, ...health.degraded].map(sentence);
  const shown = [...at("alarms").children].map((line) => line.lastChild.textContent);
  if (shown.join("\n") === alarms.join("\n")) return; // else a screen reader says it again
  at("alarms").replaceChildren(
    ...alarms.map((text, index) => {
      const line = make("p", index < health.failing.length ? "failing" : "degraded");
      line.append(shape("no_decision"), make("span", "", text));
      return line;
    }),
  );
}

function showCounts(counts) {
  for (const [name, value] of Object.entries(counts)) set(at(`count-${name}`), count(value));
  const shares = { pass: counts.passed, reject: counts.rejected, no_decision: counts.no_decision, dropped: counts.dropped };
  for (const [look, value] of Object.entries(shares)) {
    at("shares").querySelector(`.${look}`).style.flexGrow = value;
  }
}

function showParts({ cameras, sinks }) {
  const lines = cameras.map((camera) => {
    const gaps = camera.gaps ? many(camera.gaps, ", lost {n} time", ", lost {n} times") : "";
    const unread = camera.unread_parts ? say(", {n} without serial number", { n: count(camera.unread_parts) }) : "";
    const onTheWay = [
      camera.missed && say(", {n} missed", { n: count(camera.missed) }),
      camera.doubled && say(", {n} doubled", { n: count(camera.doubled) }),
      camera.incomplete && say(", {n} incomplete", { n: count(camera.incomplete) }),
    ]
      .filter(Boolean)
      .join("");
    const waiting = !camera.connected && !camera.fault && !camera.counts.frames;
    const fine = waiting ? say("waiting for the first frame") : `${say("{n} fps", { n: number(camera.frames_per_second) })}${gaps}${onTheWay}${unread}`;
    return [camera.name, camera.connected || waiting ? "" : sentence(camera.fault) || say("no image"), fine];
  });
  for (const sink of sinks) {
    const facts = [say("{n} written", { n: count(sink.written) })];
    if (sink.waiting) facts.push(say("{n} waiting", { n: count(sink.waiting) }));
    if (sink.dropped) facts.push(say("{n} dropped", { n: count(sink.dropped) }));
    lines.push([sink.name, sentence(sink.fault), facts.join(", ")]);
  }
  const list = at("parts");
  while (list.children.length > lines.length) list.lastChild.remove();
  lines.forEach(([name, fault, facts], index) => {
    list.children[index] ?? list.append(partLine());
    const line = list.children[index];
    line.dataset.look = fault ? "no_decision" : "pass";
    line.querySelector("use").setAttribute("href", `#shape-${line.dataset.look}`);
    set(line.querySelector(".name"), name);
    set(line.querySelector(".facts"), facts);
    set(line.querySelector(".fault"), fault);
  });
}

function partLine() {
  const line = make("li");
  line.append(shape("pass"), make("span", "name"), make("span", "facts"), make("span", "fault"));
  return line;
}

function showStages(stages) {
  const rows = stages.map((stage) => {
    const row = make("tr", stage.name === "total" ? "total" : "");
    const head = make("th", "", STAGES[stage.name] ?? stage.name);
    head.scope = "row";
    row.append(head, ...["p50", "p95", "p99"].map((key) => make("td", "", number(stage[key]))));
    return row;
  });
  at("stages").replaceChildren(...rows);
}
