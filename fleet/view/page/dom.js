// SPDX-License-Identifier: Apache-2.0
// Elements and numbers. Everything that is shown passes through text nodes and attributes: nothing is ever markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** A shape that says what it is when the pointer rests on it. */
export const told = (words, shape) => {
  shape.append(svg("title", {}, words));
  return shape;
};

export const write = (id, text) => {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
};

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const percent = (value) => (isNumber(value) ? `${Math.round(100 * value)} %` : "–");

/** A number of milliseconds or millijoules with as many digits as mean something. */
export function short(value) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return `${(value / 1000).toFixed(size >= 10000 ? 1 : 2)} k`;
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

export const milliseconds = (value) =>
  !isNumber(value) ? "–" : value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value >= 100 ? 0 : 1)} ms`;

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });

/** Round numbers for an axis from 0 to at least `largest`, and its ticks. */
export function axis(largest, wanted = 5) {
  const rough = Math.max(largest, 1e-6) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let k = 0; k * step <= largest + 1e-9; k += 1) ticks.push(k * step);
  return { step, ticks, digits: step < 1 ? Math.ceil(-Math.log10(step)) : 0 };
}

export const width = (node) => Math.max(280, Math.round(node.clientWidth));

const STAGES = 8;

/** The class of a stage's colour; the device's own answer has one of its own. */
export const colour = (stage) => (isNumber(stage) && stage >= 0 && stage < 15 ? `s${stage === 0 ? 0 : ((stage - 1) % STAGES) + 1}` : "own");
