// The last rejects as thumbnails, and one of them large.
import { explain } from "./dialogs.js";
import { read } from "./server.js";
import { clock, loaded, make, number, plain, say, set } from "./words.js";

const FEW = 12; // tiles, where there is little room; a whole number of rows of 3, 4 or 6
const at = (id) => document.getElementById(id);

export class Rejects {
  constructor(page) {
    this.page = page;
    this.rejects = [];
    this.heat = true;
    this.forget();
    at("viewer-close").addEventListener("click", () => at("viewer").close());
    at("viewer-newer").addEventListener("click", () => this.turn(-1));
    at("viewer-older").addEventListener("click", () => this.turn(1));
    at("viewer-heat").addEventListener("click", () => {
      this.heat = !this.heat;
      at("viewer-heat").setAttribute("aria-pressed", this.heat);
      at("viewer").classList.toggle("plain", !this.heat);
      this.view();
    });
    at("all-rejects").addEventListener("click", () => {
      const all = at("rejects").classList.toggle("all");
      at("all-rejects").setAttribute("aria-expanded", all);
      set(at("all-rejects"), all ? say("Show fewer") : say("Show all"));
    });
    at("viewer-explain").addEventListener("click", () => this.explain());
    at("viewer").addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() === "e") this.explain();
      if (event.key === "ArrowLeft") this.turn(-1);
      if (event.key === "ArrowRight") this.turn(1);
    });
    at("viewer").addEventListener("click", (event) => {
      if (event.target === at("viewer")) at("viewer").close();
      if (event.target === at("viewer-image")) this.explain();
    });
  }

  forget() {
    this.known = -1;
    at("rejects").replaceChildren();
  }

  async update(state) {
    if (state.counts.rejected === this.known || this.busy) return;
    this.busy = true;
    await this.renew(state.counts.rejected).catch(() => undefined);
    this.busy = false;
  }

  async renew(rejected) {
    const answer = await read("/api/rejects");
    this.known = rejected;
    this.rejects = answer.rejects;
    const list = at("rejects");
    const there = new Map([...list.children].map((item) => [Number(item.dataset.sequence), item]));
    // A tile is put in when its image is there: none is ever empty.
    const items = await Promise.all(this.rejects.map((reject) => there.get(reject.sequence) ?? this.item(reject)));
    list.replaceChildren(...items.filter(Boolean));
    at("no-rejects").hidden = list.children.length > 0;
    at("all-rejects").hidden = list.children.length <= FEW;
  }

  // Nothing where the image is forgotten already.
  async item(reject) {
    const image = await loaded(`/api/rejects/${reject.sequence}/image.jpg?size=thumbnail&heat=1`);
    if (!image) return null;
    const item = make("li");
    item.dataset.sequence = reject.sequence;
    const button = make("button");
    button.type = "button";
    image.alt = say("Reject at {time}", { time: clock(reject.time) });
    image.width = image.height = 120;
    const caption = make("span", "caption");
    caption.append(make("b", "", number(reject.score)), make("time", "", clock(reject.time)));
    if (reject.part !== null) caption.append(make("span", "part", plain(reject.part)));
    button.append(image, caption);
    button.addEventListener("click", () => this.open(reject));
    item.append(button);
    return item;
  }

  async open(reject) {
    this.shown = reject;
    await this.view();
    if (!at("viewer").open) at("viewer").showModal();
  }

  turn(step) {
    const place = this.rejects.findIndex((one) => one.sequence === this.shown.sequence);
    const next = this.rejects[place + step];
    if (place < 0 || !next) return;
    this.shown = next;
    this.view();
  }

  explain() {
    if (this.page.state.can_explain) explain({ sequence: this.shown.sequence });
  }

  async view() {
    const { shown } = this;
    at("viewer-explain").hidden = !this.page.state.can_explain;
    at("viewer").classList.toggle("explains", this.page.state.can_explain);
    const place = this.rejects.findIndex((one) => one.sequence === shown.sequence);
    at("viewer-newer").disabled = place <= 0;
    at("viewer-older").disabled = place < 0 || place === this.rejects.length - 1;
    set(at("viewer-title"), say("Reject at {time}", { time: clock(shown.time) }));
    const facts = [shown.category, shown.grade, say("score {score}", { score: number(shown.score, 4) }), say("threshold {threshold}", { threshold: number(shown.threshold, 4) }), say("frame {frame}", { frame: shown.frame }), shown.camera, shown.part && say("part {part}", { part: shown.part }), shown.image];
    set(at("viewer-facts"), facts.filter(Boolean).map(plain).join("  ·  "));
    const { heat } = this;
    let image = await loaded(`/api/rejects/${shown.sequence}/image.jpg?size=view&heat=${heat ? 1 : 0}`);
    if (shown !== this.shown || heat !== this.heat) return;
    image ??= make("img"); // forgotten meanwhile
    image.id = "viewer-image";
    image.alt = say("Rejected frame {frame}", { frame: shown.frame });
    at("viewer-image").replaceWith(image);
  }
}
