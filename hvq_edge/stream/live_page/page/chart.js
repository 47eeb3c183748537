// Score over time against the threshold, drawn by hand on a canvas.
import { colours, prepare, ticks } from "./canvas.js";
import { WORDS, clock, digits, number, say, sentence, set } from "./words.js";

const SHOWN = 240; // decisions
const LEFT = 46;
const RIGHT = 12;
const TOP = 26;
const BOTTOM = 22;
const CEILING = 2.5; // times the threshold: higher scores are drawn at the top edge

export class Chart {
  constructor(canvas, tip) {
    this.canvas = canvas;
    this.tip = tip;
    this.records = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.pick(undefined));
    canvas.addEventListener("blur", () => this.pick(undefined));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !this.records.length) return;
      event.preventDefault(); // else the page scrolls
      this.pick(Math.min(Math.max((this.pointed ?? this.records.length) + step, 0), this.records.length - 1));
    });
  }

  // trial: { category, value } while a threshold is tried, else nothing.
  show(records, trial) {
    this.records = records.slice(-SHOWN);
    this.trial = trial;
    this.draw();
  }

  // Scores of several categories have nothing in common but their thresholds.
  scale() {
    const judged = this.records.filter(isJudged);
    if (!judged.length) return { of: (value) => value, relative: false, low: 0, high: 1, extra: [], empty: true };
    const categories = new Set(judged.map((record) => record.category));
    const relative = categories.size > 1 && judged.every((record) => record.threshold === null || record.threshold > 0);
    const of = (value, record) => (relative ? value / (record.threshold ?? value) : value);
    const scores = judged.map((record) => of(record.score, record));
    const limits = judged.filter((record) => record.threshold !== null).map((record) => of(record.threshold, record));
    const highest = Math.max(...limits, ...(limits.length ? [] : [1]));
    const ceiling = limits.length ? Math.max(CEILING * Math.abs(highest), highest + 1e-9) : Infinity;
    const extra = this.trial && !relative && categories.has(this.trial.category) ? [this.trial.value] : [];
    const low = Math.min(0, ...scores, ...limits);
    const high = Math.max(Math.min(Math.max(...scores, low), ceiling), ...limits, ...extra, low + 1e-6);
    return { of, relative, low, high: high + 0.08 * (high - low), extra };
  }

  draw() {
    const { pen, width, height } = prepare(this.canvas);
    const colour = colours();
    const scale = this.scale();
    this.place = {
      x: (index) => LEFT + ((index + SHOWN - this.records.length + 0.5) / SHOWN) * (width - LEFT - RIGHT),
      y: (value) => height - BOTTOM - ((Math.min(value, scale.high) - scale.low) / (scale.high - scale.low)) * (height - TOP - BOTTOM),
    };
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    this.drawAxis(pen, width, height, colour, scale);
    if (this.records.length) {
      this.drawScores(pen, colour, scale, height);
      this.drawThreshold(pen, width, colour, scale);
    }
    if (this.pointed !== undefined) this.drawPointer(pen, height, colour);
    this.describe();
  }

  drawAxis(pen, width, height, colour, scale) {
    pen.fillStyle = colour.muted;
    pen.textAlign = "left";
    pen.fillText(scale.relative ? say("Score ÷ threshold") : say("Score"), 0, 12);
    pen.strokeStyle = colour.line;
    pen.lineWidth = 1;
    pen.textAlign = "right";
    const marks = scale.empty ? [0] : ticks(scale.low, scale.high, Math.max(Math.floor(height / 45), 2));
    for (const value of marks) {
      const y = Math.round(this.place.y(value)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT, y);
      pen.lineTo(width - RIGHT, y);
      pen.stroke();
      pen.fillText(digits(String(Number(value.toPrecision(6)))), LEFT - 8, y + 4);
    }
    if (!this.records.length) return;
    pen.textAlign = "left";
    pen.fillText(clock(this.records[0].time), Math.min(this.place.x(0), width - 140), height - 5);
    pen.textAlign = "right";
    pen.fillText(clock(this.records.at(-1).time), width - RIGHT, height - 5);
  }

  drawScores(pen, colour, scale, height) {
    const { x, y } = this.place;
    pen.strokeStyle = colour.muted;
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.beginPath();
    let connected = false;
    this.records.forEach((record, index) => {
      if (!isJudged(record)) {
        connected = false;
        return;
      }
      const point = [x(index), y(scale.of(record.score, record))];
      if (connected) pen.lineTo(...point);
      else pen.moveTo(...point);
      connected = true;
    });
    pen.stroke();
    this.records.forEach((record, index) => {
      pen.fillStyle = colour[record.verdict];
      if (record.verdict === "no_decision") {
        pen.fillRect(x(index) - 1.5, height - BOTTOM - 8, 3, 8);
      } else if (record.verdict === "reject") {
        diamond(pen, x(index), y(scale.of(record.score, record)), 5.5);
      } else {
        pen.beginPath();
        pen.arc(x(index), y(scale.of(record.score, record)), 2.2, 0, 7);
        pen.fill();
      }
    });
  }

  drawThreshold(pen, width, colour, scale) {
    const { x, y } = this.place;
    pen.strokeStyle = colour.text;
    pen.lineWidth = 1.5;
    pen.setLineDash([6, 4]);
    pen.beginPath();
    let last = null;
    this.records.forEach((record, index) => {
      if (!isJudged(record) || record.threshold === null) return;
      const height = y(scale.of(record.threshold, record));
      if (last === null) pen.moveTo(LEFT, height);
      else if (last !== height) {
        pen.lineTo(x(index), last);
        pen.lineTo(x(index), height);
      }
      last = height;
    });
    if (last !== null) {
      pen.lineTo(width - RIGHT, last);
      pen.stroke();
      label(pen, say("threshold"), LEFT + 6, last - 6, colour.text, colour.surface);
    }
    for (const value of scale.extra) {
      pen.strokeStyle = colour.accent;
      pen.setLineDash([2, 3]);
      pen.beginPath();
      pen.moveTo(LEFT, y(value));
      pen.lineTo(width - RIGHT, y(value));
      pen.stroke();
      label(pen, say("tried"), LEFT + 80, y(value) - 6, colour.accent, colour.surface);
    }
    pen.setLineDash([]);
  }

  drawPointer(pen, height, colour) {
    const x = Math.round(this.place.x(this.pointed)) + 0.5;
    pen.strokeStyle = colour.text;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x, TOP);
    pen.lineTo(x, height - BOTTOM);
    pen.stroke();
  }

  point(offset) {
    const inner = this.canvas.clientWidth - LEFT - RIGHT;
    const index = Math.round(((offset - LEFT) / inner) * SHOWN - 0.5) - (SHOWN - this.records.length);
    this.pick(index);
  }

  // Says what one decision was.
  pick(index) {
    const record = this.records[index];
    this.pointed = record ? index : undefined;
    this.tip.hidden = !record;
    if (record) {
      const score = record.score === null ? sentence(record.reason) : say("score {score}", { score: number(record.score, 4) });
      set(this.tip, `${clock(record.time)}  ${WORDS[record.verdict]}  ${score}`);
    }
    this.draw();
  }

  describe() {
    const rejects = this.records.filter((record) => record.verdict === "reject").length;
    const text = say("Score over time: the last {n} decisions, {rejects} rejects", { n: this.records.length, rejects });
    if (this.canvas.getAttribute("aria-label") !== text) this.canvas.setAttribute("aria-label", text);
  }
}

function isJudged(record) {
  return record.score !== null && record.verdict !== "no_decision";
}

function diamond(pen, x, y, size) {
  pen.beginPath();
  pen.moveTo(x, y - size);
  pen.lineTo(x + size, y);
  pen.lineTo(x, y + size);
  pen.lineTo(x - size, y);
  pen.fill();
}

function label(pen, text, x, y, ink, ground) {
  pen.textAlign = "left";
  pen.lineWidth = 4;
  pen.strokeStyle = ground;
  pen.save();
  pen.setLineDash([]);
  pen.strokeText(text, x, y);
  pen.fillStyle = ink;
  pen.fillText(text, x, y);
  pen.restore();
  pen.lineWidth = 1.5;
}
