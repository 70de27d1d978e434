// The Live page: a canvas a camera, drawn as pictures come; who is in view; the selected person.

import { bus, cameras, clock, drawn, make, state, stateAt, t, watch, when } from "./page.js";
import { draw, looks, who } from "./overlay.js";
import { Panel } from "./panel.js";

const STALE_MS = 1000;
const GONE_MS = 10000;
const PATIENCE_S = 10;

let shown = localStorage.getItem("mien-camera") ?? "";
if (shown !== "*" && !cameras.includes(shown)) shown = cameras[0];
const views = new Map(); // camera: its canvas and what was drawn last
let selected = null; // { camera, face, at, since }
let panel = null;
const firstSeen = new Map();
const reader = new TextDecoder();

class View {
  constructor(camera) {
    this.camera = camera;
    this.head = null;
    this.bitmap = null;
    this.places = [];
    this.arrivals = [];
    this.busy = false;
    this.next = null;
    this.began = performance.now();
    this.box = make("figure", "view");
    this.canvas = make("canvas", "", "", { role: "img", "aria-label": camera });
    this.caption = make("figcaption", "caption");
    this.trouble = make("div", "trouble");
    this.trouble.hidden = true;
    this.enrolling = make("div", "enrolling", "", { role: "status" });
    this.enrolling.hidden = true;
    const full = make("button", "full", "", { type: "button", title: t("full_screen"), "aria-label": t("full_screen") });
    full.append(make("i", "material-icons", "fullscreen", { "aria-hidden": "true" }));
    full.onclick = () => (document.fullscreenElement ? document.exitFullscreen() : this.box.requestFullscreen());
    this.box.append(this.canvas, this.trouble, this.enrolling, this.caption, full);
    this.canvas.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => this.paint()).observe(this.box);
  }

  /** Take a picture; while one is being decoded, only the newest waits. */
  take(data) {
    this.arrivals.push(performance.now());
    if (this.arrivals.length > 60) this.arrivals.shift();
    this.next = data;
    if (!this.busy) this.work();
  }

  async work() {
    this.busy = true;
    while (this.next) {
      const data = this.next;
      this.next = null;
      try {
        const length = new DataView(data).getUint32(0, true);
        const head = JSON.parse(reader.decode(new Uint8Array(data, 4, length)));
        const bitmap = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
        this.bitmap?.close();
        [this.head, this.bitmap] = [head, bitmap];
        this.latency = head.latency ?? this.latency ?? 0; // none with a picture that nobody had to look at
        notice(this.camera, head);
        this.paint();
      } catch (error) {
        console.error(error);
      }
      drawn(this.camera);
    }
    this.busy = false;
  }

  paint() {
    if (!this.bitmap || !this.box.isConnected) return;
    const scale = window.devicePixelRatio || 1;
    const room = this.box.getBoundingClientRect();
    const fit = Math.min(room.width / this.bitmap.width, room.height / this.bitmap.height);
    const [width, height] = [Math.round(this.bitmap.width * fit), Math.round(this.bitmap.height * fit)];
    if (width < 2 || height < 2) return;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.imageSmoothingQuality = "medium";
    context.drawImage(this.bitmap, 0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const troubled = this.problem() !== null;
    const chosen = selected?.camera === this.camera ? selected.face.track : null;
    this.places = troubled ? [] : draw(context, this.head, width, height, chosen);
  }

  /** Return why the picture is not live, as a headline and a reason; null while it is. */
  problem() {
    const camera = state.cameras[this.camera] ?? { state: "waiting", for_s: 0 };
    const age = performance.now() - (this.arrivals.at(-1) ?? -Infinity);
    const since = camera.for_s + (performance.now() - stateAt) / 1000;
    if (camera.state === "ended") return [t("ended"), camera.reason];
    if (camera.state === "offline") return [t("offline_for", { time: clock(since) }), camera.reason];
    if (camera.state === "paused") return [t("paused"), t("paused_why")];
    if (camera.state === "stalled") return [t("stalled_for", { time: clock(since) }), camera.reason];
    if (!this.bitmap) {
      const waited = (performance.now() - this.began) / 1000;
      return [t("waiting_pictures"), waited > PATIENCE_S ? t("waiting_long", { time: clock(waited) }) : camera.reason];
    }
    if (age > STALE_MS) return [t("stalled_for", { time: clock(age / 1000) }), null];
    return null;
  }

  rate() {
    const recent = this.arrivals.filter((at) => performance.now() - at < 2000);
    return recent.length < 2 ? 0 : ((recent.length - 1) * 1000) / (recent.at(-1) - recent[0]);
  }

  /** Say what is wrong over the picture, or how fast it comes under it. */
  tick() {
    const problem = this.problem();
    const was = !this.trouble.hidden;
    this.trouble.hidden = problem === null;
    this.box.classList.toggle("not-live", problem !== null);
    if (problem) {
      this.trouble.replaceChildren(make("strong", "", problem[0]), make("span", "", problem[1] ?? ""));
      this.caption.textContent = this.camera;
    } else {
      const parts = [this.camera, t("per_second", { rate: Math.round(this.rate()) }), `${this.latency} ms`];
      if (!this.head.analysed) parts.push(t("not_analysed"));
      this.caption.textContent = parts.join(" · ");
    }
    const enrolling = problem ? null : this.head?.enrolling;
    this.enrolling.hidden = !enrolling;
    if (enrolling)
      this.enrolling.textContent = t("enrolling", { ...enrolling, turn: t(`turn_${enrolling.turn ?? "none"}`) });
    if (was !== (problem !== null)) this.paint();
    const faces = problem ? [] : (this.head?.faces ?? []);
    const told = problem ? problem[0] : faces.map((face) => `${who(face)}, ${looks(face)}`).join("; ");
    const label = `${this.camera}: ${told || t("nobody_in_view")}`;
    if (this.canvas.getAttribute("aria-label") !== label) this.canvas.setAttribute("aria-label", label);
  }

  click(event) {
    const area = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - area.left, event.clientY - area.top];
    const inside = (r, margin) =>
      x >= r.x - margin && x <= r.x + r.width + margin && y >= r.y - margin && y <= r.y + r.height + margin;
    const hits = this.places.filter((place) => inside(place.tab, 0) || inside(place.box, 4));
    hits.sort((a, b) => inside(b.tab, 0) - inside(a.tab, 0) || a.box.width * a.box.height - b.box.width * b.box.height);
    select(hits.length ? { camera: this.camera, face: hits[0].face } : null);
  }
}

function select(choice) {
  selected = choice && { ...choice, at: performance.now(), since: firstSeen.get(choice.face.track) ?? performance.now() };
  panel?.choose(selected);
  if (selected && matchMedia("(max-width: 760px)").matches && document.activeElement?.closest(".in-view")) part("person");
  for (const view of views.values()) view.paint();
  chips();
}

/** The same person, also under another track. */
function same(a, b) {
  if (a.track === b.track) return true;
  if (a.who === "known" && b.who === "known") return a.person === b.person;
  return a.who === "unknown" && b.who === "unknown" && a.number !== null && a.number === b.number;
}

/** A new picture has come: who is in it, and is the selected one? */
function notice(camera, head) {
  const now = performance.now();
  for (const face of head.faces) if (!firstSeen.has(face.track)) firstSeen.set(face.track, now);
  while (firstSeen.size > 500) firstSeen.delete(firstSeen.keys().next().value);
  if (!selected && head.selected !== null && head.selected !== select.followed) {
    const face = head.faces.find((one) => one.track === head.selected);
    if (face) select({ camera, face }); // somebody asked Mien to follow this face
  }
  select.followed = head.selected ?? select.followed;
  if (!selected) return;
  const face =
    head.faces.find((one) => camera === selected.camera && one.track === selected.face.track) ??
    (now - selected.at > 500 ? head.faces.find((one) => same(one, selected.face)) : undefined);
  if (face) {
    if (face.track !== selected.face.track) selected.since = firstSeen.get(face.track);
    Object.assign(selected, { face, camera, at: now });
    panel?.update(selected, head);
  }
}

function cameraChips() {
  const place = document.getElementById("mien-cameras");
  if (!place) return;
  const names = cameras.length > 1 ? ["*", ...cameras] : cameras;
  if (place.childElementCount !== names.length) {
    place.replaceChildren(
      ...names.map((name) => {
        const chip = make("button", "chip", "", { type: "button", "data-camera": name });
        chip.onclick = () => show(name);
        return chip;
      }),
    );
  }
  for (const chip of place.children) {
    const name = chip.dataset.camera;
    chip.setAttribute("aria-pressed", String(name === shown));
    const camera = state.cameras[name];
    const since = camera ? camera.for_s + (performance.now() - stateAt) / 1000 : 0;
    const down = camera && ["offline", "stalled"].includes(camera.state);
    const paused = camera && camera.state === "paused";
    const told = down ? ` (${t(camera.state)} ${clock(since)})` : paused ? ` (${t("paused")})` : "";
    const text = name === "*" ? t("all_cameras") : name + told;
    if (chip.textContent !== text) chip.textContent = text;
    chip.classList.toggle("bad", Boolean(down));
  }
}

/** The faces in view as buttons: for the keyboard, for fingers, and for those who listen to the page. */
function chips() {
  const place = document.getElementById("mien-in-view");
  if (!place) return;
  const found = [...views.values()].flatMap((view) =>
    view.problem() ? [] : (view.head?.faces ?? []).map((face) => ({ camera: view.camera, face })),
  );
  const wanted = found.map((one) => `${one.camera} ${one.face.track}`);
  const there = [...place.querySelectorAll("button")];
  if (wanted.join() !== there.map((button) => button.dataset.key).join() || !place.childElementCount) {
    const focused = document.activeElement?.dataset?.key;
    const made = found.map((one, index) => {
      const button = make("button", "chip face", "", { type: "button", "data-key": wanted[index] });
      button.append(make("i", "mark"), make("span"));
      return button;
    });
    place.replaceChildren(...(made.length ? made : [make("span", "quiet", t("nobody_in_view"))]));
    if (focused) place.querySelector(`[data-key="${focused}"]`)?.focus();
  }
  for (const [index, button] of [...place.querySelectorAll("button")].entries()) {
    const { camera, face } = found[index];
    button.onclick = () => select({ camera, face });
    button.setAttribute("aria-pressed", String(selected?.camera === camera && selected.face.track === face.track));
    const text = `${who(face)} · ${looks(face)}`;
    if (button.lastChild.textContent !== text) button.lastChild.textContent = text;
    button.firstChild.dataset.label = face.looks === "ok" ? face.label : "none";
  }
}

function show(name) {
  shown = name;
  localStorage.setItem("mien-camera", name);
  const names = name === "*" ? cameras : [name];
  if (selected && !names.includes(selected.camera)) select(null); // what buttons do is done to what is seen
  const place = document.getElementById("mien-views");
  for (const camera of names) if (!views.has(camera)) views.set(camera, new View(camera));
  for (const [camera, view] of views) if (!names.includes(camera)) { view.box.remove(); views.delete(camera); }
  place.replaceChildren(...names.map((camera) => views.get(camera).box));
  place.style.setProperty("--columns", Math.ceil(Math.sqrt(names.length)));
  place.style.setProperty("--rows", Math.ceil(names.length / Math.ceil(Math.sqrt(names.length))));
  watch(names);
  tick();
}

function part(name) {
  document.querySelector(".live").dataset.shown = name;
  for (const tab of document.querySelectorAll("[data-part]"))
    tab.setAttribute("aria-selected", String(tab.dataset.part === name));
}

function tick() {
  for (const view of views.values()) view.tick();
  cameraChips();
  chips();
  pausing();
  if (selected && performance.now() - selected.at > GONE_MS * 6) select(null);
  panel?.tick(selected);
}

/** The camera that buttons are for; empty: all are shown, and nobody is selected. */
function meant() {
  if (selected) return selected.camera;
  return shown !== "*" ? shown : cameras.length === 1 ? cameras[0] : "";
}

/** Pause or Resume: what the camera that is meant can do. */
function pausing() {
  const place = document.getElementById("mien-pausing");
  if (!place) return;
  const paused = String(state.cameras[meant()]?.state === "paused");
  if (place.dataset.paused === paused) return;
  const focused = place.contains(document.activeElement);
  place.dataset.paused = paused;
  if (focused) place.querySelector(`[data-do=${paused === "true" ? "resume" : "pause"}]`).focus();
}

/** Ask Mien to do something with what is shown here; live.py hears it. */
window.mienAct = (what) => {
  const face = selected?.face;
  emitEvent("mien-act", { do: what, camera: meant(), track: face?.track, person: face?.person, number: face?.number });
};

when("mien-views", () => {
  when("mien-panel", (element) => {
    panel = new Panel(element);
    panel.choose(null);
    show(shown);
    bus.addEventListener("picture", (event) => {
      const data = event.detail;
      const length = new DataView(data).getUint32(0, true);
      const head = reader.decode(new Uint8Array(data, 4, Math.min(length, 200)));
      const camera = head.match(/"camera":"([\w-]+)"/)?.[1];
      const view = views.get(camera);
      if (view) view.take(data);
      else drawn(camera);
    });
    bus.addEventListener("state", tick);
    setInterval(tick, 250);
    for (const tab of document.querySelectorAll("[data-part]")) tab.onclick = () => part(tab.dataset.part);
    document.addEventListener("keydown", (event) => {
      if (event.target.closest("input, textarea, select, .q-dialog")) return;
      if (event.key === "Escape") select(null);
    });
  });
});
