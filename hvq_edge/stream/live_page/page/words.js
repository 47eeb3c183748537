// Numbers and times as an operator reads them.
export const WORDS = { pass: "PASS", reject: "REJECT", no_decision: "NO DECISION" };

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  const whole = size < 1 ? 1 : Math.floor(Math.log10(size)) + 1;
  return value.toFixed(Math.max(digits - whole, 0));
}

export function count(value) {
  return value.toLocaleString("en-GB").replaceAll(",", "\u202f");
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

export function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} days`;
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
