// Decisions on parts that have serial numbers, and those whose number is looked for.
import { clock, make, number, plain, say, set, shape } from "./words.js";

const SHOWN = 6;
const at = (id) => document.getElementById(id);

export class Parts {
  constructor(page, rejects) {
    this.page = page;
    this.rejects = rejects;
    at("part").addEventListener("input", () => this.update());
  }

  update() {
    const known = this.page.records.filter((record) => record.part !== null);
    at("part-card").hidden = known.length === 0 && !at("part").value;
    const wanted = at("part").value.trim().toLowerCase();
    const found = known.filter((record) => record.part.toLowerCase().includes(wanted));
    const newest = found.slice(-SHOWN).reverse();
    const shown = newest.map((record) => record.sequence).join();
    if (shown !== this.shown) at("found").replaceChildren(...newest.map((record) => this.item(record)));
    this.shown = shown;
    const older = say("Older ones: hvq-edge log show --part NUMBER.");
    const all = found.length > SHOWN ? `${say("The newest of {n}.", { n: found.length })} ` : "";
    set(at("found-note"), found.length ? `${all}${older}` : `${say("Not among the last {n} decisions.", { n: this.page.records.length })} ${older}`);
  }

  // A reject opens large, while its image is remembered.
  item(record) {
    const item = make("li");
    item.dataset.look = record.verdict;
    const large = record.verdict === "reject";
    const name = make(large ? "button" : "b", "part", plain(record.part));
    if (large) {
      name.type = "button";
      name.addEventListener("click", () => this.rejects.open(record));
    }
    const score = record.score === null ? say("no decision") : number(record.score);
    const facts = [record.camera, record.image].filter(Boolean).map(plain);
    item.append(shape(record.verdict), name, make("span", "facts", `${score}  ·  ${clock(record.time)}`));
    item.append(make("small", "", facts.join("  ·  ")));
    return item;
  }
}
