// SPDX-License-Identifier: Apache-2.0
// Who answered, what it cost beside the alternatives, and the last frames.

import { axis, byId, colour, el, isNumber, milliseconds, percent, short, svg, told, width, write } from "./dom.js";

const NAMES = { fleet: "FLEET", local: "always local", jpeg: "always JPEG" };

export function drawExits(place, { histogram, totals }) {
  const bars = [...histogram.exits.map((exit) => ({ ...exit, name: String(exit.stage) })),
    { stage: 15, name: "device", count: histogram.device }];
  const all = bars.reduce((sum, bar) => sum + bar.count, 0);
  const w = width(place);
  const [height, floor, top] = [160, 128, 18];
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  const step = (w - 8) / bars.length;
  const shapes = bars.flatMap((bar, k) => {
    const tall = ((floor - top) * bar.count) / most;
    const [x, middle] = [4 + k * step + step * 0.12, 4 + (k + 0.5) * step];
    const words = `${bar.stage === 15 ? "the device itself" : `exit ${bar.stage}`}: ${bar.count} of ${all} frames`;
    return [
      told(words, svg("rect", { x, y: floor - tall, width: step * 0.76, height: Math.max(tall, bar.count ? 2 : 0), rx: 3, class: `bar ${colour(bar.stage)}` })),
      bar.count > 0 && svg("text", { x: middle, y: floor - tall - 5, class: "tick strong", "text-anchor": "middle" }, `${Math.round((100 * bar.count) / all)}`),
      svg("text", { x: middle, y: floor + 15, class: "tick", "text-anchor": "middle" }, bar.name),
    ].filter(Boolean);
  });
  place.replaceChildren(svg("svg", { viewBox: `0 0 ${w} ${height}`, width: w, height, role: "img", "aria-label": `Of ${all} frames the hub answered ${totals.by_hub}` },
    svg("line", { x1: 0, x2: w, y1: floor, y2: floor, class: "base" }), ...shapes,
    svg("text", { x: 4, y: height - 1, class: "tick" }, "exit on the hub; % of frames")));
  const right = totals.known ? ` · ${percent(totals.right / totals.known)} right` : "";
  write("exits-facts", all ? `${totals.frames} frames${isNumber(totals.rate) ? `, ${totals.rate.toFixed(1)}/s` : ""}${right}` : "");
}

function bar(name, value, most, whisker, unit) {
  const share = isNumber(value) && most > 0 ? (100 * value) / most : 0;
  const track = el("div", { class: "track" });
  const made = el("span", { class: `fill ${name}` });
  made.style.inlineSize = `${Math.max(share, isNumber(value) ? 0.6 : 0)}%`;
  track.append(made);
  if (isNumber(whisker) && most > 0) {
    const mark = el("span", { class: "whisker", title: `95 % are below ${short(whisker)} ${unit}` });
    mark.style.insetInlineStart = `${Math.min(100, (100 * whisker) / most)}%`;
    track.append(mark);
  }
  const shown = isNumber(value) ? `${short(value)} ${unit}` : "not known";
  return el("div", { class: "row" }, el("span", { class: "name" }, NAMES[name]), track, el("output", { class: isNumber(value) ? "" : "quiet" }, shown));
}

export function drawComparison(place, { comparison, platform, link }) {
  const rows = Object.entries(comparison.rows);
  const group = (title, key, measure, unit) => {
    const found = rows.map(([name, row]) => [name, row[key]?.[measure], row[key]?.p95]);
    const known = found.flatMap(([, value, high]) => [value, key === "latency_ms" ? high : null]).filter(isNumber);
    const most = 1.02 * Math.max(0, ...known);
    return el("div", { class: "group" }, el("h3", {}, title),
      ...found.map(([name, value, high]) => bar(name, value, most, key === "latency_ms" ? high : null, unit)));
  };
  place.replaceChildren(
    group("Latency, median", "latency_ms", "p50", "ms"),
    group("Energy of the device, mean", "energy_mj", "mean", "mJ"),
  );
  write("comparison-facts", comparison.frames ? `the same ${comparison.frames} frames` : "no frame yet");
  drawConditions(byId("conditions"), comparison, platform, link);
}

let conditionsOf = "";

/** Under which conditions the numbers hold; rewritten only when they change, so that it can be read and copied. */
function drawConditions(place, c, platform, link) {
  const size = c.input_size ? `${c.input_size}×${c.input_size} pixels` : "the network's input size";
  const power = platform && isNumber(platform.power_mw) ? `${Math.round(platform.power_mw)} mW busy` : "power unknown";
  const scale = platform && platform.time_scale !== 1 ? `, times × ${platform.time_scale}` : "";
  const lines = [
    "Latency runs from the frame being ready until the device holds the answer; the bar is the median, the mark the 95th percentile. Energy is the device's: processor while busy, and radio until the answer.",
    "FLEET: as measured in this run, the computer's own delays included.",
    `Always local: the whole network on the device, no radio. ${c.local_measured ? "Measured on frames that the device answered alone." : "Modelled from the platform."}`,
    `Always JPEG: ${size}, quality ${c.jpeg_quality}${c.jpeg_bytes ? `, ${c.jpeg_bytes} bytes in the mean` : ""}; every byte must arrive, then the hub answers. Modelled with this frame's own wait for the radio; compression counts as free.`,
    `Hub: ${milliseconds(Math.round(10 * c.hub_ms) / 10)} for an answer (median of the last exits).`,
    platform ? `Platform: ${platform.name} (${power}${scale}). ${platform.source}` : "Platform: not known here.",
    link ? `Link: ${link.ack} acknowledgement, ${link.effective_packets} of ${link.packets} payloads fit an event.` : "Link: not known yet.",
    `Radio energy: ${c.radio}; ${c.radio_note}.`,
    "Accuracy is not compared here: fleet evaluate and the tables in docs do that.",
  ];
  const key = lines.join("\n").replace(/[\d.]+ bytes|[\d.]+ ms for/g, "");
  if (key === conditionsOf && !place.closest("details").open) return;
  if (place.closest("details").open && key === conditionsOf) return;
  conditionsOf = key;
  place.replaceChildren(...lines.map((line) => el("p", {}, line)));
}

let recentKey = "";

export function drawRecent(place, { recent }, pinned, pick) {
  const w = width(place);
  const key = `${w}:${recent.length}:${recent.at(-1)?.seq}:${Object.keys(recent.at(-1)?.latency ?? {})}:${pinned}`;
  if (key === recentKey) return;
  recentKey = key;
  const [height, floor, top, left] = [160, 132, 8, 34];
  const values = recent.flatMap((entry) => Object.values(entry.latency)).filter(isNumber);
  const most = 1.05 * Math.max(1, ...values);
  const y = (ms) => floor - ((floor - top) * Math.min(ms, most)) / most;
  const room = Math.max(24, Math.floor((w - left) / 4.5));
  const shown = recent.slice(-room);
  const step = Math.min((w - left - 4) / Math.max(shown.length, 1), 12);
  const { ticks, digits } = axis(most, 4);
  const mark = (name, entry, k) => isNumber(entry.latency[name]) && svg("line", {
    x1: left + k * step, x2: left + (k + 1) * step, y1: y(entry.latency[name]), y2: y(entry.latency[name]), class: `other ${name}`,
  });
  const shapes = shown.flatMap((entry, k) => {
    const ms = entry.latency.fleet;
    const words = `${entry.group}, ${entry.by === "hub" ? `exit ${entry.stage}` : "device"}, ${milliseconds(ms)}`;
    const hit = told(words, svg("rect", { x: left + k * step, y: top, width: step, height: floor - top, class: "hit", tabindex: -1 }));
    hit.addEventListener("click", () => pick(entry.seq));
    return [
      isNumber(ms) && svg("rect", {
        x: left + k * step + 0.5, y: y(ms), width: Math.max(1, step - 1), height: Math.max(1, floor - y(ms)), rx: 1,
        class: `bar ${entry.by === "hub" ? colour(entry.stage) : "own"} ${entry.seq === pinned ? "pinned" : ""} ${entry.right === false ? "wrong" : ""}`,
      }),
      mark("local", entry, k),
      mark("jpeg", entry, k),
      hit,
    ].filter(Boolean);
  });
  place.replaceChildren(svg("svg", { viewBox: `0 0 ${w} ${height}`, width: w, height, role: "img", "aria-label": `Latency of the last ${shown.length} frames` },
    ...ticks.flatMap((ms) => [
      svg("line", { x1: left, x2: w, y1: y(ms), y2: y(ms), class: "grid" }),
      svg("text", { x: left - 5, y: y(ms) + 4, class: "tick", "text-anchor": "end" }, ms.toFixed(digits)),
    ]),
    ...shapes,
    svg("line", { x1: left, x2: w, y1: floor, y2: floor, class: "base" }),
    svg("line", { x1: left, x2: left + 14, y1: height - 7, y2: height - 7, class: "other local" }),
    svg("text", { x: left + 19, y: height - 3, class: "tick" }, "always local"),
    svg("line", { x1: left + 96, x2: left + 110, y1: height - 7, y2: height - 7, class: "other jpeg" }),
    svg("text", { x: left + 115, y: height - 3, class: "tick" }, "always JPEG"),
    svg("text", { x: w, y: height - 3, class: "tick", "text-anchor": "end" }, "ms")));
}
