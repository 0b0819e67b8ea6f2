// SPDX-License-Identifier: Apache-2.0
// One inference: what the device's processor, the radio and the hub did, on one axis of time.

import { axis, byId, colour, el, isNumber, milliseconds, percent, svg, told, width } from "./dom.js";

const LEFT = 62;
const RIGHT = 16;
const DEVICE = { y: 24, height: 38 };
const RADIO = { y: 76, height: 40 };
const HUB = { y: 130, height: 80 };
const AXIS = HUB.y + HUB.height + 8;
const HEIGHT = AXIS + 24;
const MOST_TICKS = 400;

/** The axis fits most of the last frames, so that it does not jump about, and a longer one always. */
function fitted(end, usual) {
  const wanted = Math.max(10, 1.06 * end, 1.4 * usual);
  const step = 10 ** Math.floor(Math.log10(wanted)) / 5;
  return Math.ceil(wanted / step) * step;
}

export function drawTimeline(place, frame, usual) {
  const w = width(place);
  const most = fitted(frame.end, usual);
  const x = (ms) => LEFT + ((w - LEFT - RIGHT) * Math.max(-0.02 * most, Math.min(ms, most))) / most;
  const parts = [
    ...lanes(w),
    ...grid(x, most),
    ...wakeUps(frame, x, most),
    ...deviceLane(frame, x),
    ...radioLane(frame, x),
    ...hubLane(frame, x, w),
    ...answerLine(frame, x, w),
  ];
  place.replaceChildren(
    svg("svg", { viewBox: `0 0 ${w} ${HEIGHT}`, width: w, height: HEIGHT, role: "img", "aria-label": inWords(frame) }, ...parts),
  );
  drawLegend(frame);
}

function inWords(frame) {
  const answer = frame.answer ? `${frame.answer.group}, ${percent(frame.answer.confidence)}` : "no answer yet";
  const who = !frame.answer ? "" : frame.answer.by === "hub" ? `, exit ${frame.answer.stage} on the hub` : ", the device itself";
  return `Inference ${frame.id}: ${answer}${who}, after ${milliseconds(frame.held ?? frame.end)}`;
}

function lanes(w) {
  const names = [
    ["Device", DEVICE],
    ["Radio", RADIO],
    ["Hub", HUB],
  ];
  return names.flatMap(([name, lane]) => [
    svg("rect", { x: LEFT, y: lane.y, width: w - LEFT - RIGHT, height: lane.height, rx: 6, class: "lane" }),
    svg("text", { x: 4, y: lane.y + lane.height / 2 + 4, class: "lane-name" }, name),
  ]);
}

function grid(x, most) {
  const { ticks, digits } = axis(most, 6);
  return ticks.flatMap((ms, k) => [
    svg("line", { x1: x(ms), x2: x(ms), y1: DEVICE.y - 4, y2: AXIS, class: "grid" }),
    svg("text", { x: x(ms), y: AXIS + 15, class: "tick", "text-anchor": k ? "middle" : "start" },
      `${ms.toFixed(digits)}${k ? "" : " ms"}`),
  ]);
}

function wakeUps(frame, x, most) {
  const { first, every } = frame.wake;
  if (!isNumber(first) || !(every > 0)) return [];
  const marks = [];
  for (let k = 0; k < MOST_TICKS && first + k * every <= most; k += 1) {
    const at = x(first + k * every);
    marks.push(svg("line", { x1: at, x2: at, y1: RADIO.y, y2: RADIO.y + RADIO.height, class: "wake" }));
  }
  return [told(`the radio wakes up every ${milliseconds(every)}`, svg("g", {}, ...marks))];
}

function box(x, begin, end, lane, inset, attributes) {
  const left = x(begin);
  return svg("rect", {
    x: left,
    y: lane.y + inset,
    width: Math.max(1.5, x(end) - left - 1),
    height: lane.height - 2 * inset,
    rx: 3,
    ...attributes,
  });
}

const centre = (x, begin, end) => (x(begin) + x(end)) / 2;

function deviceLane(frame, x) {
  if (!frame.stages.length) return frame.report ? [] : [note(x, DEVICE, "the device is not heard here")];
  return frame.stages.flatMap((stage) => {
    const rest = stage.n === 15;
    const name = rest ? "the rest of the network" : `stage ${stage.n}`;
    const how = { done: "", cut: ", cut short by the answer", running: ", running", answered: ", and the device's own answer" };
    const sent = stage.packets ? `, ${stage.packets} packets, ${stage.size} bytes offered` : "";
    const words = `${name}: ${milliseconds(stage.end - stage.begin)}${how[stage.state] ?? ""}${sent}`;
    const wide = x(stage.end) - x(stage.begin);
    const label = rest ? (wide > 120 ? "rest of the network" : wide > 34 ? "rest" : "") : wide > 12 ? String(stage.n) : "";
    return [
      told(words, box(x, stage.begin, stage.end, DEVICE, 5, { class: `block ${stage.state} ${colour(stage.n)}` })),
      label && svg("text", {
        x: centre(x, stage.begin, stage.end), y: DEVICE.y + DEVICE.height / 2 + 4, class: `inside ${stage.state}`, "text-anchor": "middle",
      }, label),
    ].filter(Boolean);
  });
}

function radioLane(frame, x) {
  if (!frame.events.length && !isNumber(frame.wake.first)) return [note(x, RADIO, "packets are not seen here")];
  return frame.events.flatMap((event) => [
    ...event.packets.map((packet) => {
      const name = packet.stage === 15 ? "the device's own answer" : `stage ${packet.stage}`;
      const words = `${name}: ${packet.bytes} bytes${packet.lost ? ", lost" : ""}, at ${milliseconds(event.at + packet.end)}`;
      const end = Math.max(event.at + packet.end, event.at + packet.begin);
      return told(words, box(x, event.at + packet.begin, end, RADIO, 9, {
        class: `packet ${packet.lost ? "lost" : ""} ${colour(packet.stage)}`,
      }));
    }),
    event.notice && event.notice !== "repeated" && exitNotice(event, x),
  ].filter(Boolean));
}

function exitNotice(event, x) {
  const at = x(event.at);
  const words = event.notice === "heard" ? "the hub says stop, and the device hears it" : "the hub says stop; the air loses it";
  return told(words, svg("path", {
    d: `M${at - 5} ${RADIO.y + RADIO.height - 1} h10 l-5 -9 z`, class: `notice ${event.notice}`,
  }));
}

function hubLane(frame, x, w) {
  if (!frame.runs.length) {
    const own = frame.answer && frame.answer.by === "device";
    return frame.over ? [note(x, HUB, own ? "no exit ran" : "exits are not seen here")] : [];
  }
  const y = (share) => HUB.y + HUB.height * (1 - Math.max(0, Math.min(share, 1)));
  const floor = HUB.y + HUB.height;
  return [
    ...[0.5, 1].map((share) => svg("text", { x: w - RIGHT - 5, y: y(share) + (share === 1 ? 12 : -3), class: "tick", "text-anchor": "end" }, percent(share))),
    svg("line", { x1: LEFT, x2: w - RIGHT, y1: y(0.5), y2: y(0.5), class: "half" }),
    ...frame.runs.flatMap((run) => {
      const left = x(run.begin);
      const right = Math.max(x(run.end), left + 5);
      const top = y(run.certainty ?? 0);
      const words = `exit ${run.stage}: ${run.group} (${run.class}), ${percent(run.certainty)} sure, `
        + `${percent(run.threshold)} needed, ${milliseconds(run.end - run.begin)}`;
      const threshold = isNumber(run.threshold) && svg("line", {
        x1: left - 3, x2: right + 3, y1: y(run.threshold), y2: y(run.threshold), class: "threshold",
      });
      return [
        told(words, svg("rect", {
          x: left, y: top, width: right - left, height: Math.max(2, floor - top), rx: 2,
          class: `run ${run.answered ? "answered" : ""} ${colour(run.stage)}`,
        })),
        threshold,
        right - left > 11 && svg("text", { x: (left + right) / 2, y: floor - 5, class: "inside", "text-anchor": "middle" }, String(run.stage)),
      ].filter(Boolean);
    }),
  ];
}

function answerLine(frame, x, w) {
  if (!isNumber(frame.held) || !frame.answer) return [];
  const at = x(frame.held);
  const right = at > w - 190;
  const words = `${frame.answer.group} after ${milliseconds(frame.held)}`;
  return [
    svg("line", { x1: at, x2: at, y1: 16, y2: AXIS, class: "answer" }),
    svg("text", { x: at + (right ? -6 : 6), y: 15, class: "answer-text", "text-anchor": right ? "end" : "start" }, words),
  ];
}

const note = (x, lane, words) =>
  svg("text", { x: x(0) + 10, y: lane.y + lane.height / 2 + 4, class: "note" }, words);

let legendOf = "";

function drawLegend(frame) {
  const stages = [...new Set([...frame.stages.map((s) => s.n), ...frame.runs.map((r) => r.stage)])].filter((n) => n >= 0 && n < 15);
  const most = Math.max(...stages, 1);
  const key = String(Math.min(most, 14));
  if (key === legendOf) return;
  legendOf = key;
  const numbers = Array.from({ length: Number(key) }, (_, k) => k + 1);
  byId("legend").replaceChildren(
    el("li", { class: "words" }, "stage"),
    ...numbers.map((n) => el("li", { class: `swatch ${colour(n)}` }, String(n))),
    el("li", { class: "words gap" }, el("i", { class: "key lost" }), "packet lost"),
    el("li", { class: "words" }, el("i", { class: "key threshold" }), "sure enough to answer"),
    el("li", { class: "words" }, el("i", { class: "key wake" }), "radio wakes up"),
    el("li", { class: "words" }, el("i", { class: "key notice" }), "hub says stop"),
  );
}
