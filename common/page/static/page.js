// What every page does in the browser: one WebSocket to Mien, the badge, the warnings, the sound, clocks that run.

const setup = JSON.parse(document.getElementById("mien-setup").textContent);

document.documentElement.lang = setup.language;

export const cameras = setup.cameras;
export const bus = new EventTarget(); // "state": how things stand; "picture": an ArrayBuffer
export let state = setup.state;
export let stateAt = performance.now();

const EXPRESSIONS = ["angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"];
export const COLOURS = {
  angry: "#D55E00", disgusted: "#009E73", fearful: "#CC79A7", happy: "#F0E442", sad: "#0072B2", surprised: "#E69F00",
  neutral: "#999999",
};
export { EXPRESSIONS };

/** Return Mien's time, unix seconds: this machine's clock may be wrong. */
export function now() {
  return state.now + (performance.now() - stateAt) / 1000;
}

/** Return a text of the page in its language, with its fields filled in. */
export function t(key, fields = {}) {
  return (setup.words[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => fields[name] ?? whole);
}

/** Return seconds as m:ss, or h:mm:ss from an hour on. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** Return an element with classes, text and attributes. */
export function make(tag, className = "", text = "", attributes = {}) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Call a function once an element is there: the page's frame builds it a moment later. */
export function when(id, callback) {
  const element = document.getElementById(id);
  if (element) callback(element);
  else requestAnimationFrame(() => when(id, callback));
}

// --- the connection ---

let socket = null;
let watched = [];
let delay = 500;

export function watch(names) {
  watched = names;
  tell();
}

export function drawn(camera) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ drawn: camera }));
}

function tell() {
  // A page that nobody looks at costs nothing: its pictures are not even encoded.
  if (socket?.readyState === WebSocket.OPEN)
    socket.send(JSON.stringify({ watch: document.hidden ? [] : watched }));
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/feed`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    delay = 500;
    lost(false);
    bus.dispatchEvent(new Event("open"));
    tell();
  };
  socket.onmessage = (message) => {
    if (typeof message.data !== "string") {
      bus.dispatchEvent(new CustomEvent("picture", { detail: message.data }));
      return;
    }
    const before = state;
    state = JSON.parse(message.data);
    stateAt = performance.now();
    show();
    if (state.opened > before.opened) ring();
    bus.dispatchEvent(new Event("state"));
  };
  socket.onclose = async () => {
    lost(true);
    bus.dispatchEvent(new Event("lost"));
    try {
      if ((await fetch("/page/session")).status === 401) {
        location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
        return;
      }
    } catch {
      // Mien itself is away: it comes back.
    }
    setTimeout(connect, delay);
    delay = Math.min(5000, delay * 2);
  };
}

document.addEventListener("visibilitychange", tell);

function lost(away) {
  const notice = document.getElementById("mien-lost");
  if (notice) notice.hidden = !away;
}

function show() {
  for (const badge of document.querySelectorAll("[data-badge]")) {
    badge.hidden = !state.alerts;
    badge.textContent = state.alerts;
    badge.setAttribute("aria-label", `${state.alerts} ${t("open_alerts")}`);
  }
  const unwell = state.unwell.length > 0;
  for (const dot of document.querySelectorAll("[data-unwell]")) dot.hidden = !unwell;
  const notice = document.getElementById("mien-unwell");
  if (notice) {
    notice.hidden = !unwell;
    notice.textContent = unwell ? t("stale", { what: state.unwell.join("; ") }) : "";
  }
}

// --- sound ---

let audio = null;

function sounds() {
  return localStorage.getItem("mien-sound") === "on";
}

/** Two soft tones. Browsers allow them only after somebody has clicked on the page. */
function ring() {
  if (!sounds()) return;
  audio ??= new AudioContext();
  audio.resume();
  for (const [index, pitch] of [660, 880].entries()) {
    const tone = audio.createOscillator();
    const volume = audio.createGain();
    const begin = audio.currentTime + index * 0.25;
    tone.frequency.value = pitch;
    volume.gain.setValueAtTime(0, begin);
    volume.gain.linearRampToValueAtTime(0.2, begin + 0.03);
    volume.gain.exponentialRampToValueAtTime(0.001, begin + 0.6);
    tone.connect(volume).connect(audio.destination);
    tone.start(begin);
    tone.stop(begin + 0.7);
  }
}

document.addEventListener("change", (event) => {
  if (event.target.id !== "mien-sound") return;
  localStorage.setItem("mien-sound", event.target.checked ? "on" : "off");
  if (event.target.checked) ring();
});
document.addEventListener("click", () => {
  if (sounds()) (audio ??= new AudioContext()).resume();
  const box = document.getElementById("mien-sound");
  if (box) box.checked = sounds();
}, true);

// --- clocks that run: <span data-since="unix seconds"> ---

setInterval(() => {
  for (const element of document.querySelectorAll("[data-since]"))
    element.textContent = clock(now() - element.dataset.since);
}, 1000);

when("mien-lost", () => {
  show();
  connect();
});
