// Faces drawn onto a picture: a thin box in the expression's colour, a dark tab with name and word, corner marks for
// the selected one; dashed grey and the reason for a face that cannot be assessed. The window's quiet twin.

import { COLOURS, t } from "./page.js";

const REASONS = { dark: "dark_face" };
const INK = "#F5F5F5";
const QUIET = "#B2B2B2";
const GROUND = "rgba(26, 28, 30, 0.88)";
const GREY = "#969696";

/** Return a face's name, "unknown 12", or … while the answer is to come. */
export function who(face) {
  if (face.who === "known") return face.name ?? `#${face.person}`;
  if (face.who === "unknown") return face.number === null ? t("unknown") : t("unknown_number", { number: face.number });
  return "…";
}

/** Return the expression's word, why there is none, or … while the answer is to come. */
export function looks(face) {
  if (face.looks === "ok" && face.label) return t(face.label);
  if (face.looks === "cannot_assess") return t(REASONS[face.reason] ?? face.reason ?? "cannot_assess");
  return "…";
}

/** Draw a result's faces; return where each box and tab is. */
export function draw(context, head, width, height, selected) {
  const [across, down] = [width / head.width, height / head.height];
  const unit = Math.max(13, Math.min(24, Math.round(Math.min(height / 30, width / 42))));
  const order = [...head.faces].sort(
    (a, b) => (a.track === selected) - (b.track === selected) || a.box[2] * a.box[3] - b.box[2] * b.box[3],
  );
  const places = order.map((face) => {
    const box = { x: face.box[0] * across, y: face.box[1] * down, width: face.box[2] * across, height: face.box[3] * down };
    outline(context, face, box, unit, face.track === selected);
    return { face, box, tab: null };
  });
  const taken = [];
  for (const place of [...places].reverse()) {
    place.tab = tab(context, place.face, place.box, unit, width, height, taken);
    taken.push(place.tab);
  }
  return places;
}

function outline(context, face, box, unit, selected) {
  const sure = face.looks === "ok" && face.label;
  context.lineWidth = Math.max(1.5, unit / 9);
  context.setLineDash(sure ? [] : [unit / 2, unit / 3]);
  context.strokeStyle = "rgba(0, 0, 0, 0.45)"; // a dark rim: the colour is seen on any ground
  context.strokeRect(box.x - 1, box.y - 1, box.width + 2, box.height + 2);
  context.strokeStyle = sure ? COLOURS[face.label] : GREY;
  context.strokeRect(box.x, box.y, box.width, box.height);
  context.setLineDash([]);
  if (!selected) return;
  const [arm, gap] = [Math.max(8, Math.min(box.width, box.height) * 0.22), Math.max(4, unit / 3)];
  context.lineWidth = Math.max(3, unit / 5);
  context.strokeStyle = INK;
  for (const [x, y, right, below] of [
    [box.x - gap, box.y - gap, 1, 1],
    [box.x + box.width + gap, box.y - gap, -1, 1],
    [box.x - gap, box.y + box.height + gap, 1, -1],
    [box.x + box.width + gap, box.y + box.height + gap, -1, -1],
  ]) {
    context.beginPath();
    context.moveTo(x + right * arm, y);
    context.lineTo(x, y);
    context.lineTo(x, y + below * arm);
    context.stroke();
  }
}

function tab(context, face, box, unit, width, height, taken) {
  const [name, word] = [who(face), looks(face)];
  const pad = Math.round(unit * 0.4);
  const mark = face.looks === "ok" && face.label ? unit * 0.55 : 0;
  context.font = `${face.who === "known" ? 600 : 400} ${unit}px system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif`;
  context.textBaseline = "middle";
  const nameText = fitted(context, name === word && name === "…" ? "" : name, width * 0.5);
  const nameWidth = nameText ? context.measureText(nameText).width + pad : 0;
  context.font = `400 ${unit}px system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif`;
  const wordText = fitted(context, word, width * 0.4);
  const whole = 2 * pad + nameWidth + (mark ? mark + pad : 0) + context.measureText(wordText).width;
  const high = Math.round(unit * 1.55);
  const spots = [
    [box.x, box.y - high - 3],
    [box.x, box.y + box.height + 3],
    [box.x + box.width - whole, box.y - high - 3],
    [box.x, box.y + 2],
  ].map(([x, y]) => ({ x: Math.max(0, Math.min(width - whole, x)), y: Math.max(0, Math.min(height - high, y)), width: whole, height: high }));
  const free = (spot) =>
    taken.every((o) => spot.x + spot.width <= o.x || o.x + o.width <= spot.x || spot.y + spot.height <= o.y || o.y + o.height <= spot.y);
  const above = box.y - high - 3 >= 0;
  const spot = (above ? spots : [spots[1], spots[3], spots[0]]).find(free) ?? (above ? spots[0] : spots[1]);
  context.fillStyle = GROUND;
  context.beginPath();
  context.roundRect(spot.x, spot.y, spot.width, spot.height, unit / 5);
  context.fill();
  const middle = spot.y + high / 2 + 0.5;
  let x = spot.x + pad;
  if (nameText) {
    context.font = `${face.who === "known" ? 600 : 400} ${unit}px system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif`;
    context.fillStyle = face.who === "known" ? INK : QUIET;
    context.fillText(nameText, x, middle);
    x += nameWidth;
  }
  if (mark) {
    context.fillStyle = COLOURS[face.label];
    context.fillRect(x, middle - mark / 2, mark, mark);
    x += mark + pad;
  }
  context.font = `400 ${unit}px system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif`;
  context.fillStyle = face.looks === "ok" ? INK : QUIET;
  context.fillText(wordText, x, middle);
  return spot;
}

function fitted(context, text, limit) {
  if (context.measureText(text).width <= limit) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > limit) end -= 1;
  return `${text.slice(0, end)}…`;
}
