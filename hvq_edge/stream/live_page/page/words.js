// Words, numbers and times as an operator reads them, in the page's language.
const LANGUAGE = { decimal: ".", page: {}, said: {}, ...JSON.parse(document.getElementById("language")?.textContent ?? "{}") };
const PLACE = /{(\w+)}/g;
const filled = (text, values) => text.replace(PLACE, (_, name) => values[name]);

// Translates a message and fills its places.
export function say(message, values = {}) {
  return filled(LANGUAGE.page[message] || message, values);
}

// One of two messages by a count, whose place is {n}.
export function many(found, one, other) {
  return say(found === 1 ? one : other, { n: count(found) });
}

// Sentences that the inspector put together, those with the most words first.
const SAID = Object.entries(LANGUAGE.said)
  .sort(([one], [other]) => other.replace(PLACE, "").length - one.replace(PLACE, "").length)
  .map(([message, translation]) => [pattern(message), translation]);

function pattern(message) {
  const ONE = "(?:(?![,:;] ).)"; // no list, and no second sentence

  const parts = message.split(PLACE);
  return new RegExp(`^${parts.map((part, place) => (place % 2 ? `(?<${part}>${/^said|^names$/.test(part) ? "." : ONE}+?)` : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))).join("")}$`, "s");
}

const DEEPEST = 50; // sentences within a sentence that are translated

// Translates such a sentence; what no catalogue knows stays as it is, and so does the rest of a very long list.
export function sentence(text, deep = 0) {
  if (deep > DEEPEST) return text;
  for (const [known, translation] of SAID) {
    const places = known.exec(text)?.groups;
    if (places !== undefined || known.test(text)) {
      const parts = Object.entries(places ?? {}).map(([name, part]) => [name, name.startsWith("said") ? sentence(part, deep + 1) : digits(part)]);
      return filled(translation, Object.fromEntries(parts));
    }
  }
  return digits(text);
}

// Puts the decimal mark into a number that is written already.
export function digits(text) {
  return /^[+-]?\d+\.\d+(e[+-]?\d+)?%?$/.test(text) ? text.replace(".", LANGUAGE.decimal) : text;
}

export const WORDS = { pass: say("PASS"), reject: say("REJECT"), no_decision: say("NO DECISION") };

export function number(value, counting = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return digits(value.toExponential(2));
  const whole = size < 1 ? 1 : Math.floor(Math.log10(size)) + 1;
  return digits(value.toFixed(Math.max(counting - whole, 0)));
}

export function count(value) {
  return value.toLocaleString("en-GB").replaceAll(",", "\u202f");
}

// A day and a time, as the page's language writes them.
export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(LANGUAGE.code ?? "en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

export function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return say("{n} days", { n: Math.floor(seconds / 86400) });
}

// A name without what would show as nothing, or turn what stands beside it around.
export function plain(text) {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, (one) => `\\u${one.codePointAt(0).toString(16).padStart(4, "0")}`);
}

export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function make(tag, look, text) {
  const element = document.createElement(tag);
  if (look) element.className = look;
  if (text !== undefined) element.textContent = text;
  return element;
}

// An image that is there to its last pixel, so that it takes its place without a flash; null where
// there is none.
export async function loaded(address) {
  const image = make("img");
  image.src = address;
  return image.decode().then(() => image, () => null);
}

export function shape(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "shape");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#shape-${name}`);
  svg.append(use);
  return svg;
}

// The name that somebody gives is kept in this browser, for every page of this inspector.
const NAME = "hvq-edge name";

export function keepName(field) {
  field.value = localStorage.getItem(NAME) ?? "";
  field.addEventListener("change", () => localStorage.setItem(NAME, field.value.trim()));
}
