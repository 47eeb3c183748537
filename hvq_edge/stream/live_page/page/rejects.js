// The last rejects as thumbnails, and one of them large.
import { read } from "./server.js";
import { clock, make, number, set } from "./words.js";

const at = (id) => document.getElementById(id);

export class Rejects {
  constructor() {
    this.rejects = [];
    this.heat = true;
    this.forget();
    at("viewer-close").addEventListener("click", () => at("viewer").close());
    at("viewer-newer").addEventListener("click", () => this.turn(-1));
    at("viewer-older").addEventListener("click", () => this.turn(1));
    at("viewer-heat").addEventListener("click", () => {
      this.heat = !this.heat;
      at("viewer-heat").setAttribute("aria-pressed", this.heat);
      this.view();
    });
    at("viewer").addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.turn(-1);
      if (event.key === "ArrowRight") this.turn(1);
    });
    at("viewer").addEventListener("click", (event) => {
      if (event.target === at("viewer")) at("viewer").close();
    });
  }

  forget() {
    this.known = -1;
  }

  async update(state) {
    if (state.counts.rejected === this.known) return;
    const answer = await read("/api/rejects");
    this.known = state.counts.rejected;
    this.rejects = answer.rejects;
    at("no-rejects").hidden = this.rejects.length > 0;
    const list = at("rejects");
    const there = new Map([...list.children].map((item) => [Number(item.dataset.sequence), item]));
    list.replaceChildren(...this.rejects.map((reject) => there.get(reject.sequence) ?? this.item(reject)));
  }

  item(reject) {
    const item = make("li");
    item.dataset.sequence = reject.sequence;
    const button = make("button");
    button.type = "button";
    const image = make("img");
    image.src = `/api/rejects/${reject.sequence}/image.jpg?size=thumbnail&heat=1`;
    image.alt = `Reject at ${clock(reject.time)}`;
    image.width = image.height = 120;
    const caption = make("span", "caption");
    caption.append(make("b", "", number(reject.score)), make("time", "", clock(reject.time)));
    button.append(image, caption);
    button.addEventListener("click", () => {
      this.shown = reject;
      this.view();
      at("viewer").showModal();
    });
    item.append(button);
    return item;
  }

  turn(step) {
    const place = this.rejects.findIndex((one) => one.sequence === this.shown.sequence);
    const next = this.rejects[place + step];
    if (place < 0 || !next) return;
    this.shown = next;
    this.view();
  }

  view() {
    const { shown } = this;
    const place = this.rejects.findIndex((one) => one.sequence === shown.sequence);
    at("viewer-newer").disabled = place <= 0;
    at("viewer-older").disabled = place < 0 || place === this.rejects.length - 1;
    set(at("viewer-title"), `Reject at ${clock(shown.time)}`);
    at("viewer-image").src = `/api/rejects/${shown.sequence}/image.jpg?size=view&heat=${this.heat ? 1 : 0}`;
    at("viewer-image").alt = `Rejected frame ${shown.frame}`;
    const facts = [shown.category, shown.grade, `score ${number(shown.score, 4)}`, `threshold ${number(shown.threshold, 4)}`, `frame ${shown.frame}`, shown.camera];
    set(at("viewer-facts"), facts.filter(Boolean).join("  ·  "));
  }
}
