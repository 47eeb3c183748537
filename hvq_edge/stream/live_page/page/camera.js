// One camera: verdict, image, and score over time. The verdict is always that of the image
// shown: both come in one answer.
import { Chart } from "./chart.js";
import { explain } from "./dialogs.js";
import { ask, change } from "./server.js";
import { WORDS, clock, loaded, number, plain, say, sentence, set, span } from "./words.js";

const OLD_SECONDS = 3; // after which the verdict says its age
const RECENT_REJECT_SECONDS = 60;
const ANNOUNCED_EVERY_MS = 10_000;

export class Camera {
  constructor(page, name, index) {
    this.page = page;
    this.name = name;
    this.index = index;
    const copy = document.getElementById("camera-template").content.cloneNode(true);
    this.box = copy.querySelector(".camera");
    this.part = Object.fromEntries(
      ["word", "reason", "score", "limit", "image", "over", "facts", "name", "unlike", "drift", "moved", "anew", "explain"].map((look) => [look, copy.querySelector(`.${look}`)]),
    );
    this.use = copy.querySelector("use");
    this.chart = new Chart(copy.querySelector(".chart"), copy.querySelector(".tip"));
    document.getElementById("cameras").append(copy);
    this.part.image.alt = say("Newest frame of {camera}", { camera: name });
    set(this.part.name, name);
    this.part.anew.addEventListener("click", () => change("/api/drift", { camera: name }));
    this.part.explain.addEventListener("click", () => this.explain());
    this.box.addEventListener("click", (event) => {
      if (event.target === this.part.image) this.explain();
    });
    this.tag = "";
    this.removed = false;
    this.shownAt = performance.now();
    this.lastReject = -Infinity;
    this.look();
  }

  remove() {
    this.removed = true;
    this.box.remove();
  }

  // Asks for the newest image for as long as the page lives.
  async look() {
    while (!this.removed) {
      const began = performance.now();
      if (!document.hidden) await this.ask().catch(() => undefined);
      const left = this.page.interval - (performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, Math.max(left, 20)));
    }
  }

  async ask() {
    const heat = this.page.heat ? 1 : 0;
    const answer = await ask(`/api/cameras/${this.index}/image.jpg?heat=${heat}`, {
      headers: this.tag ? { "if-none-match": this.tag } : {},
    });
    if (answer.status !== 200 && answer.status !== 204) return;
    const decision = JSON.parse(answer.headers.get("x-decision"));
    if (!decision) return; // no frame yet
    if (answer.status === 200) await this.showImage(await answer.blob());
    if (decision.sequence !== this.decision?.sequence) this.shownAt = performance.now();
    this.tag = answer.headers.get("etag");
    this.decision = decision;
    this.showVerdict();
  }

  async showImage(blob) {
    const { image: former } = this.part;
    const image = await loaded(URL.createObjectURL(blob));
    if (!image) return;
    image.className = former.className;
    image.alt = former.alt;
    former.replaceWith(image);
    this.part.image = image;
    if (former.src) URL.revokeObjectURL(former.src);
  }

  update(state, paused) {
    this.state = state;
    this.paused = paused;
    const records = this.page.records.filter((record) => record.camera === this.name);
    const rejects = records.filter((record) => record.verdict === "reject");
    const newest = rejects.at(-1)?.sequence;
    if (newest && newest !== this.newestReject) {
      // What happened before the page was opened is not news.
      if (this.newestReject !== undefined) {
        this.lastReject = performance.now();
        this.announce(rejects.at(-1));
      }
      this.newestReject = newest;
    }
    this.newestReject ??= 0;
    this.chart.show(records, this.page.trial);
    const facts = [say("{n} fps", { n: number(state.frames_per_second, 3) })];
    if (state.newest) {
      facts.unshift(say("frame {frame}", { frame: state.newest.frame }));
      facts.push(`${number(state.newest.latency_ms, 3)} ms`);
    }
    set(this.part.facts, facts.join("  ·  "));
    set(this.part.unlike, sentence(state.unlike));
    this.part.unlike.hidden = !state.unlike;
    set(this.part.moved, sentence(state.drift));
    this.part.drift.hidden = !state.drift;
    this.part.anew.disabled = !this.page.state?.may_change;
    this.part.anew.title = this.part.anew.disabled ? say("Unlock first") : say("Parts are good as they are now: take the next ones as usual");
    this.part.explain.hidden = !this.page.state?.can_explain;
    this.part.explain.disabled = this.decision?.score == null;
    this.box.classList.toggle("explains", !this.part.explain.hidden && !this.part.explain.disabled);
    this.showVerdict();
  }

  // Of the decision that is shown, whatever came since.
  explain() {
    if (this.page.state?.can_explain && this.decision?.score != null) explain({ sequence: this.decision.sequence });
  }

  // To a screen reader, which would never end on a line that rejects much.
  announce({ score, time }) {
    if (performance.now() - this.page.announcedAt < ANNOUNCED_EVERY_MS) return;
    this.page.announcedAt = performance.now();
    const said = { camera: this.name, score: number(score), time: clock(time) };
    set(document.getElementById("spoken"), say("Reject at {time}, {camera}, score {score}", said));
  }

  loseConnection() {
    this.showVerdict();
  }

  showVerdict() {
    const { decision, state } = this;
    const age = (performance.now() - this.shownAt) / 1000;
    const view = this.viewOf(decision, state);
    this.box.dataset.look = view.look;
    this.box.classList.toggle("old", view.look !== "waiting" && age > OLD_SECONDS);
    this.use.setAttribute("href", `#shape-${view.shape ?? view.look}`);
    set(this.part.word, view.word);
    set(this.part.reason, view.reason || this.note(decision, age));
    set(this.part.score, view.measured ? number(decision.score) : "");
    set(this.part.limit, view.measured ? say("threshold {threshold}", { threshold: number(decision.threshold) }) : "");
    set(this.part.over, view.over ?? "");
    this.part.over.hidden = !view.over;
  }

  viewOf(decision, state) {
    if (!this.page.online && state) {
      const reason = say("The inspector does not answer. Trying again.");
      return { look: "no_decision", word: say("NO CONNECTION"), reason, over: say("Not live") };
    }
    if (state && !state.connected && (state.fault || decision)) {
      const reason = sentence(state.fault) || say("No image from this camera");
      return { look: "no_decision", word: say("CAMERA LOST"), reason, over: say("No image") };
    }
    if (this.paused) return { look: "paused", word: say("PAUSED"), reason: say("Frames are not judged") };
    if (!decision) {
      const over = say("Waiting for the first frame");
      return { look: "waiting", word: say("WAITING"), reason: "", over };
    }
    const { verdict } = decision;
    const measured = verdict !== "no_decision" && decision.score !== null;
    const word = /^unknown part/i.test(decision.reason) ? say("UNKNOWN PART") : WORDS[verdict];
    return { look: verdict, word, measured, reason: measured ? "" : sentence(decision.reason) };
  }

  // Under PASS and REJECT: what it is, and what must not be missed.
  note(decision, age) {
    if (!decision) return "";
    const notes = [decision.category ?? "", decision.part ? say("part {part}", { part: plain(decision.part) }) : ""];
    const since = (performance.now() - this.lastReject) / 1000;
    if (age > OLD_SECONDS) notes.push(say("{span} ago", { span: span(age) }));
    else if (decision.verdict !== "reject" && since < RECENT_REJECT_SECONDS) {
      notes.push(since < 2 ? say("last reject just now") : say("last reject {span} ago", { span: span(since) }));
    }
    return notes.filter(Boolean).join("  ·  ");
  }
}
