// SPDX-License-Identifier: Apache-2.0
// The list of events. An entry is made once and then only told what is new, so that no picture is loaded twice.

import { byId, clock, el, percent, write } from "./dom.js";

const made = new Map();

function entry() {
  const image = el("img", { alt: "", loading: "lazy", width: 132, height: 99, hidden: true });
  const [group, name, when] = [el("strong"), el("span", { class: "class" }), el("span", { class: "when" })];
  return { node: el("li", {}, el("div", { class: "thumb" }, image), el("p", {}, group, " ", name), when), image, group, name, when, snapshot: null };
}

export function forgetEvents() {
  made.clear();
  byId("events").replaceChildren();
}

export function drawEvents({ events, totals, camera }) {
  const list = byId("events");
  const kept = new Set(events.map((event) => event.number));
  for (const [number, { node }] of made) {
    if (!kept.has(number)) {
      node.remove();
      made.delete(number);
    }
  }
  [...events].reverse().forEach((event) => {
    let item = made.get(event.number);
    if (!item) {
      item = entry();
      made.set(event.number, item);
      list.prepend(item.node);
    }
    item.group.textContent = event.group;
    item.name.textContent = `${event.class} ${percent(event.confidence)}`;
    const seconds = event.last - event.first;
    item.when.textContent = `${clock(event.first)}${seconds >= 0.1 ? ` · ${seconds.toFixed(1)} s` : ""}`;
    item.node.title = `${event.group}: ${event.class}\n${event.frames} frame${event.frames === 1 ? "" : "s"}`;
    if (event.snapshot && event.snapshot !== item.snapshot) {
      item.snapshot = event.snapshot;
      item.image.src = `events/${event.number}?camera=${encodeURIComponent(camera)}&of=${encodeURIComponent(event.snapshot)}`;
      item.image.alt = `${event.group}: ${event.class}`;
      item.image.hidden = false;
    }
  });
  byId("no-events").hidden = events.length > 0;
  write("events-facts", totals.events > events.length ? `the last ${events.length} of ${totals.events}` : totals.events ? `${totals.events} so far` : "");
}
