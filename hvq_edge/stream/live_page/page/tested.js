// What thresholds do to labelled test images: missed defects against false rejects.
import { colours, prepare } from "./canvas.js";
import { read } from "./server.js";
import { count, number, say, sentence, set } from "./words.js";

const LEFT = 60;
const RIGHT = 14;
const TOP = 8;
const BOTTOM = 36;
const TICKS = [0, 0.5, 1];
const DOT = 5;

const at = (id) => document.getElementById(id);

export class Tested {
  constructor() {
    new ResizeObserver(() => this.draw()).observe(at("trade-off"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.forget();
  }

  forget() {
    this.asked = null;
    this.found = null;
  }

  // Test images stay as they are: they are asked for again where the threshold is another one.
  async show(category, inForce, value) {
    const asked = JSON.stringify([category, inForce, value]);
    if (asked === this.asked) return;
    this.asked = asked;
    const query = new URLSearchParams({ category, threshold: value });
    const found = await read(`/api/tested?${query}`).catch(() => null);
    if (asked !== this.asked) return;
    if (!found) {
      this.asked = null; // the next state asks again
      return;
    }
    this.found = found;
    this.changed = value !== inForce;
    this.say();
    this.draw();
  }

  say() {
    const { untested, good, defective, in_force: now, tried, threshold } = this.found;
    at("trade-off").hidden = untested !== "";
    const said = ({ rejected, missed }) =>
      say("{missed} of {defective} defects missed, {rejected} of {good} good parts rejected", { missed: count(missed), defective: count(defective), rejected: count(rejected), good: count(good) });
    const trial = this.changed ? ` ${say("At {threshold}: {said}.", { threshold: number(threshold, 4), said: said(tried) })}` : "";
    set(at("tested"), untested ? say("Not known: {why}.", { why: sentence(untested) }) : `${said(now)}.${trial}`);
  }

  draw() {
    if (!this.found || this.found.untested) return;
    const { pen, width, height } = prepare(at("trade-off"));
    if (!width) return;
    const { good, defective, curve, in_force: now, tried } = this.found;
    const colour = colours();
    const x = (share) => LEFT + share * (width - LEFT - RIGHT);
    const y = (share) => height - BOTTOM - share * (height - TOP - BOTTOM);
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    pen.fillStyle = colour.muted;
    pen.strokeStyle = colour.line;
    pen.lineWidth = 1;
    for (const share of TICKS) {
      line(pen, [[x(share), y(0)], [x(share), y(1)]]);
      line(pen, [[x(0), y(share)], [x(1), y(share)]]);
      pen.textAlign = "right";
      pen.fillText(`${100 * share} %`, LEFT - 8, y(share) + 4);
      pen.textAlign = share === 1 ? "right" : "center";
      pen.fillText(`${100 * share} %`, x(share) + (share === 1 ? RIGHT : 0), y(0) + 15);
    }
    pen.textAlign = "center";
    pen.fillText(say("good parts rejected"), x(0.5), height - 4);
    pen.save();
    pen.translate(11, y(0.5));
    pen.rotate(-Math.PI / 2);
    pen.fillText(say("defects missed"), 0, 0);
    pen.restore();
    pen.strokeStyle = colour.accent;
    pen.lineWidth = 2;
    line(pen, curve.map(([rejected, missed]) => [x(rejected / good), y(missed / defective)]));
    const place = ({ rejected, missed }) => [x(rejected / good), y(missed / defective)];
    dot(pen, place(now), colour.text, colour.text);
    if (this.changed) dot(pen, place(tried), colour.surface, colour.text);
  }
}

function line(pen, places) {
  pen.beginPath();
  for (const [x, y] of places) pen.lineTo(x, y);
  pen.stroke();
}

function dot(pen, [x, y], inside, edge) {
  pen.beginPath();
  pen.arc(x, y, DOT, 0, 2 * Math.PI);
  pen.fillStyle = inside;
  pen.fill();
  pen.strokeStyle = edge;
  pen.lineWidth = 2;
  pen.stroke();
}
