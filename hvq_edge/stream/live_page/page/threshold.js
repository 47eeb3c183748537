// The threshold: tried on recent frames, put in force, kept.
import { colours, prepare } from "./canvas.js";
import { change, read } from "./server.js";
import { Tested } from "./tested.js";
import { count, keepName, many, number, say, set } from "./words.js";

const BINS = 48;
const THUMB = 10; // half a slider's thumb: its track begins there
const WAIT_MS = 80;
const at = (id) => document.getElementById(id);

export class Threshold {
  constructor(page) {
    this.page = page;
    this.tested = new Tested();
    this.trial = null;
    this.said = "";
    new ResizeObserver(() => this.draw()).observe(at("spread"));
    at("category").addEventListener("change", () => {
      this.chosen = true;
      this.undo();
    });
    at("slider").addEventListener("input", () => this.try(Number(at("slider").value)));
    at("value").addEventListener("input", () => {
      if (at("value").value !== "" && at("value").validity.valid) this.try(Number(at("value").value));
    });
    at("apply").addEventListener("click", () => this.apply(false));
    at("save").addEventListener("click", () => this.apply(true));
    keepName(at("by"));
    at("reset").addEventListener("click", () => this.undo());
  }

  get category() {
    return at("category").value;
  }

  get inForce() {
    return this.page.state?.thresholds.find((one) => one.category === this.category)?.value;
  }

  get value() {
    return this.trial ?? this.inForce;
  }

  update(state) {
    const names = state.thresholds.map((one) => one.category);
    at("threshold-card").hidden = names.length === 0;
    if (names.length === 0) return;
    const select = at("category");
    if (select.options.length !== names.length) {
      select.replaceChildren(...names.map((name) => new Option(name, name)));
    }
    if (!this.chosen) {
      // The category that is shown, once there is one; another one only by hand, to keep a trial.
      const seen = this.page.records.findLast((record) => record.verdict !== "no_decision" && names.includes(record.category));
      if (seen) select.value = seen.category;
      this.chosen = Boolean(seen);
    }
    select.parentElement.hidden = names.length < 2;
    this.show();
    this.ask();
  }

  forget() {
    this.chosen = false;
    this.tested.forget();
    this.undo();
  }

  undo() {
    this.trial = null;
    this.found = null;
    this.said = "";
    this.show();
    this.ask();
  }

  try(value) {
    this.trial = value;
    this.said = "";
    this.show();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), WAIT_MS);
  }

  async ask() {
    if (!Number.isFinite(this.value)) return;
    this.tested.show(this.category, this.inForce, this.value);
    const query = new URLSearchParams({ category: this.category, threshold: this.value });
    const found = await read(`/api/preview?${query}`).catch(() => null);
    if (found && found.category === this.category && found.threshold === this.value) {
      this.found = found;
      this.show();
    }
  }

  async apply(save) {
    const value = this.value;
    const fault = await change("/api/threshold", { category: this.category, value, save, by: at("by").value.trim() });
    const done = save ? say("Saved in the bundle and in force.") : say("In force until the inspector ends.");
    this.said = fault || done;
    at("threshold-note").classList.toggle("fault", Boolean(fault));
    if (!fault) {
      const state = this.page.state;
      state.thresholds = state.thresholds.map((one) => (one.category === this.category ? { ...one, value } : one));
      this.trial = null;
      this.ask();
    }
    this.show();
  }

  show() {
    const { state } = this.page;
    if (!state || this.value === undefined) return;
    const changed = this.trial !== null && this.trial !== this.inForce;
    this.page.trial = changed ? { category: this.category, value: this.trial } : null;
    this.setRange();
    if (document.activeElement !== at("value")) at("value").value = Number(this.value.toPrecision(5));
    at("apply").disabled = !changed || !state.may_change;
    at("save").disabled = !state.may_change || !state.can_save;
    at("save").title = state.can_save ? say("Keep it in the bundle") : say("The bundle cannot be changed here");
    at("reset").disabled = !changed;
    this.showPreview(changed);
    const locked = changed ? say("Unlock with the token to apply it.") : "";
    set(at("threshold-note"), this.said || (state.may_change ? "" : locked));
    this.draw();
  }

  setRange() {
    const { found } = this;
    if (!found || found.category !== this.category || document.activeElement === at("slider")) {
      at("slider").value = this.value;
      return;
    }
    const low = Math.min(found.lowest ?? this.value, this.value, this.inForce);
    const high = Math.max(found.highest ?? this.value, this.value, this.inForce);
    const margin = 0.08 * (high - low) || Math.abs(high) || 1;
    at("slider").min = low - margin;
    at("slider").max = high + margin;
    at("slider").value = this.value;
  }

  showPreview(changed) {
    const { found } = this;
    if (!found || found.category !== this.category || found.frames === 0) {
      set(at("preview"), say("No frame of this category was judged yet."));
      return;
    }
    const frames = many(found.frames, "Of the last frame,", "Of the last {n} frames,");
    const now = say("the threshold in force rejects {n}", { n: count(found.rejects_now) });
    const tried = say("{threshold} would reject {n};", { threshold: number(found.threshold, 4), n: count(found.would_reject) });
    set(at("preview"), `${frames} ${changed ? `${tried} ` : ""}${now}.`);
  }

  // Scores of the frames of the preview above the slider, so that a gap between good and bad is seen.
  draw() {
    const { pen, width, height } = prepare(at("spread"));
    const { found } = this;
    if (!found || found.category !== this.category) return;
    const colour = colours();
    const [low, high] = [Number(at("slider").min), Number(at("slider").max)];
    const bins = Array.from({ length: BINS }, () => ({ passed: 0, rejected: 0 }));
    found.scores.forEach((score, rank) => {
      const bin = bins[Math.floor(((score - low) / (high - low)) * BINS)];
      if (bin) bin[rank < found.frames - found.would_reject ? "passed" : "rejected"] += 1;
    });
    const most = Math.max(...bins.map((bin) => bin.passed + bin.rejected), 1);
    const step = (width - 2 * THUMB) / BINS;
    bins.forEach(({ passed, rejected }, bin) => {
      const frames = passed + rejected;
      if (!frames) return;
      const tall = Math.max(Math.sqrt(frames / most) * (height - 4), 3);
      const left = THUMB + bin * step + 0.5;
      const wide = Math.max(step - 1, 1);
      pen.fillStyle = colour.reject;
      pen.fillRect(left, height - tall, wide, tall);
      pen.fillStyle = colour.pass;
      pen.fillRect(left, height - (tall * passed) / frames, wide, (tall * passed) / frames);
    });
  }
}
