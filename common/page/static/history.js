// The History page: a stretch of the ribbon is chosen by dragging over it.

import { clock, make, when } from "./page.js";

when("mien-ribbon", (ribbon) => {
  const [begin, end] = [Number(ribbon.dataset.begin), Number(ribbon.dataset.end)];
  const area = make("div", "ribbon-chosen");
  area.hidden = true;
  ribbon.append(area);
  let from = null;
  const part = (event) => {
    const room = ribbon.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - room.left) / room.width));
  };
  ribbon.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    from = part(event);
    ribbon.setPointerCapture(event.pointerId);
  });
  ribbon.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const to = part(event);
    area.hidden = false;
    area.style.left = `${100 * Math.min(from, to)}%`;
    area.style.width = `${100 * Math.abs(to - from)}%`;
    area.textContent = clock(Math.abs(to - from) * (end - begin));
  });
  ribbon.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [first, last] = [from, part(event)].sort((a, b) => a - b);
    from = null;
    area.hidden = true;
    if (last - first < 0.005) return;
    emitEvent("mien-zoom", { begin: begin + first * (end - begin), end: begin + last * (end - begin) });
  });
});
