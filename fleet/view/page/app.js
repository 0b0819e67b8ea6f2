// SPDX-License-Identifier: Apache-2.0
// The page: takes snapshots from the view node, the newest one whenever there is one, and shows them.

import { drawComparison, drawExits, drawRecent } from "./charts.js";
import { byId, el, isNumber, milliseconds, percent, write } from "./dom.js";
import { drawEvents, forgetEvents } from "./events.js";
import { drawTimeline } from "./timeline.js";

const SILENT_MS = 8000; // the node speaks every two seconds at least
const LONGEST_WAIT_MS = 5000;

let camera = new URLSearchParams(location.search).get("camera");
let state = null;
let pinned = null; // a frame that the user looks at
let paused = false;
let socket = null;
let silence = 0;
let wait = 250;
let due = false;

// The connection -------------------------------------------------------------------------------------------------
function connect() {
  const query = camera === null ? "" : `?camera=${encodeURIComponent(camera)}`;
  const own = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live${query}`);
  socket = own;
  const hush = () => {
    clearTimeout(silence);
    silence = setTimeout(() => own.close(), SILENT_MS);
  };
  hush();
  own.addEventListener("message", (message) => {
    if (own !== socket) return;
    hush();
    wait = 250;
    take(JSON.parse(message.data));
  });
  own.addEventListener("close", () => {
    if (own !== socket) return;
    clearTimeout(silence);
    status("lost", "connection lost, trying again");
    // A camera that a restarted node does not have: begin with its first one.
    if (wait > 1000 && state === null) camera = null;
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  });
}

function take(next) {
  const restarted = state !== null && next.totals.frames < state.totals.frames;
  if (restarted) unpin();
  if (restarted || state?.camera !== next.camera) forgetEvents();
  camera = next.camera;
  state = next;
  if (!paused && !due) {
    due = true;
    requestAnimationFrame(draw);
  }
}

// What is shown --------------------------------------------------------------------------------------------------
function draw() {
  due = false;
  if (state === null) return;
  document.title = state.frame?.answer ? `${state.frame.answer.group} · FLEET` : "FLEET";
  showState();
  drawCameras();
  drawChips();
  const frame = pinned ?? state.frame;
  if (frame) {
    drawPicture(frame);
    drawTimeline(byId("timeline"), frame, pinned ? 0 : usualLatency());
    drawFacts(frame);
  }
  drawComparison(byId("comparison"), state);
  drawExits(byId("exits"), state);
  drawRecent(byId("recent"), state, pinned?.seq ?? null, pin);
  drawEvents(state);
}

/** Three quarters of the last frames took no longer than this, in ms. */
function usualLatency() {
  const known = state.recent.map((entry) => entry.latency.fleet).filter(isNumber).sort((a, b) => a - b);
  return known.length ? known[Math.floor(0.75 * (known.length - 1))] : 0;
}

function showState() {
  const { link, frame, now } = state;
  const quiet = frame ? now - frame.captured : 0;
  if (!frame) status("wait", "waiting for the first frame");
  else if (link && link.connected === false) status("alone", "no hub: the device answers by itself");
  else if (quiet > 5 && frame.over) status("wait", `no frame for ${Math.round(quiet)} s`);
  else status("live", paused ? "held" : "live");
}

function status(kind, words) {
  const pill = byId("status");
  pill.dataset.state = kind;
  if (pill.textContent !== words) pill.textContent = words;
}

function drawCameras() {
  const nav = byId("cameras");
  const names = state.cameras.join("\n");
  if (nav.dataset.names !== names) {
    nav.dataset.names = names;
    nav.replaceChildren(...state.cameras.map((name) => {
      const button = el("button", { type: "button" }, name);
      button.addEventListener("click", () => look(name));
      return button;
    }));
  }
  [...nav.children].forEach((button, k) => button.setAttribute("aria-current", state.cameras[k] === state.camera));
  nav.hidden = state.cameras.length < 2;
}

function look(name) {
  camera = name;
  state = null;
  unpin();
  forgetEvents();
  history.replaceState(null, "", `?camera=${encodeURIComponent(name)}`);
  const old = socket;
  socket = null;
  old?.close();
  connect();
}

function drawChips() {
  const { link, platform, conditions } = state;
  const words = [];
  if (link) {
    words.push([`CI ${link.ci_ms} ms`, "connection interval: the radio wakes up this often"]);
    words.push([link.phy, "radio mode (PHY)"]);
    words.push([`${link.effective_packets} × ${link.payload} B`, "packets that one connection event carries"]);
    if (link.transport === "emulated") words.push([`loss ${percent(link.loss)}`, "probability that a packet is lost"]);
    words.push([link.transport, "the radio"]);
  }
  if (platform) words.push([platform.name, "what the device is paced to"]);
  if (conditions.model) words.push([conditions.model, `model; codec ${conditions.codec ?? "its own"}`]);
  const list = byId("chips");
  const key = JSON.stringify(words);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...words.map(([text, title]) => el("li", { title }, text)));
}

let loading = false;
let wanted = "";

function drawPicture(frame) {
  const answer = frame.answer;
  write("group", answer ? answer.group : "…");
  write("class", answer ? answer.class : "");
  write("confidence", answer ? percent(answer.confidence) : "");
  byId("confidence-bar").style.inlineSize = answer && isNumber(answer.confidence) ? `${100 * answer.confidence}%` : "0";
  write("who", answer ? (answer.by === "hub" ? `hub, exit ${answer.stage}` : "the device itself") : "under way");
  const truth = frame.report?.truth;
  write("verdict", !truth || !answer ? "" : truth === answer.group ? "right" : `is ${truth}`);
  byId("verdict").dataset.right = String(!truth || truth === answer?.group);
  const src = `pictures/${encodeURIComponent(frame.picture)}?camera=${encodeURIComponent(state.camera)}`;
  if (!frame.picture || src === wanted || loading) return; // a picture that takes longer than a frame skips some
  wanted = src;
  loading = true;
  const image = new Image();
  image.addEventListener("load", () => {
    loading = false;
    const shown = byId("picture");
    shown.src = image.src;
    shown.alt = answer ? `${answer.group}: ${answer.class}` : "the camera's picture";
    shown.hidden = false;
    byId("no-picture").hidden = true;
  });
  image.addEventListener("error", () => {
    loading = false;
    wanted = ""; // it may come later than what is said of it
  });
  image.src = src;
}

function drawFacts(frame) {
  const { report } = frame;
  const parts = [`#${frame.id}`];
  if (report) {
    parts.push(milliseconds(report.latency_ms));
    if (report.packets !== null) parts.push(`${report.packets} packets${report.lost ? `, ${report.lost} lost` : ""}`, `${report.bytes} B`);
    if (report.energy_mj !== null) parts.push(`${report.energy_mj.toFixed(2)} mJ, ${report.radio_mj.toFixed(2)} of it radio`);
    if (report.name) parts.push(report.name);
  } else if (!frame.over) parts.push("under way");
  write("frame-facts", parts.join(" · "));
  byId("unpin").hidden = pinned === null;
}

// What the user does ---------------------------------------------------------------------------------------------
async function pin(seq) {
  const answer = await fetch(`frames/${seq}?camera=${encodeURIComponent(state.camera)}`).catch(() => null);
  if (answer?.ok) {
    pinned = await answer.json();
    draw();
  }
}

function unpin() {
  pinned = null;
  byId("unpin").hidden = true;
}

function hold(value) {
  paused = value;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  draw();
}

byId("unpin").addEventListener("click", () => { unpin(); draw(); });
byId("pause").addEventListener("click", () => hold(!paused));
byId("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && pinned) { unpin(); draw(); }
  if (event.key === " " && event.target === document.body) { event.preventDefault(); hold(!paused); }
});
addEventListener("resize", () => requestAnimationFrame(draw));

connect();
