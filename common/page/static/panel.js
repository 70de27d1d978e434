// The selected person: name, how the face looks now, seven bars, and the last ten minutes.

import { clock, COLOURS, EXPRESSIONS, make, now as time, t } from "./page.js";
import { looks, who } from "./overlay.js";

const MINUTES = 10;
const BARS_MS = 100; // bars move ten times a second at most: calmer, and cheaper
const SETUP = JSON.parse(document.getElementById("mien-setup").textContent);

export class Panel {
  constructor(element) {
    this.element = element;
    this.key = null;
    this.moments = []; // [unix seconds, label or null, share]
    this.drawnAt = 0;
  }

  /** Show somebody else, or nobody. */
  choose(selected) {
    const key = selected && `${selected.camera} ${selected.face.track}`;
    if (key === this.key && this.element.childElementCount) return;
    this.key = key;
    this.moments = [];
    if (!selected) {
      this.element.replaceChildren(make("p", "quiet empty", t("select_hint")));
      return;
    }
    const button = (what, text, extra = "") => {
      const made = make("button", `action ${extra}`, text, { type: "button", "data-do": what });
      made.onclick = () => window.mienAct(what);
      return made;
    };
    this.name = make("h2", "panel-name");
    this.since = make("p", "quiet");
    this.word = make("p", "panel-word");
    this.bars = make("div", "bars");
    for (const label of EXPRESSIONS) {
      const row = make("div", "bar-row", "", { "data-label": label });
      const track = make("div", "bar-track");
      track.append(make("div", "bar-fill"));
      row.append(make("span", "bar-word", t(label)), track, make("span", "bar-number"));
      this.bars.append(row);
    }
    this.chart = make("canvas", "chart", "", { role: "img" });
    this.coverage = make("p", "quiet");
    const actions = make("div", "actions");
    if (SETUP.operator) {
      this.naming = button("name", t("give_name"), "first");
      this.following = button("follow", t("follow"));
      this.noting = button("note", t("note"));
      actions.append(this.naming, this.following, button("snapshot", t("snapshot")), this.noting);
    }
    this.link = make("a", "action", t("see_history"));
    actions.append(this.link);
    this.element.replaceChildren(
      this.name, this.since, this.word, this.bars, make("h3", "panel-title", t("last_minutes", { count: MINUTES })),
      this.chart, this.coverage, actions,
    );
    this.update(selected, null, true);
    this.load(selected);
  }

  /** Fetch what Mien remembers of the last minutes. */
  async load(selected) {
    const { face } = selected;
    const key = this.key;
    const query = new URLSearchParams({ track: face.track });
    if (face.person !== null) query.set("person", face.person);
    if (face.number !== null) query.set("number", face.number);
    const answer = await fetch(`/live/recent?${query}`);
    if (!answer.ok || key !== this.key) return;
    const known = await answer.json();
    const last = known.at(-1)?.[0] ?? 0;
    this.moments = [...known, ...this.moments.filter((moment) => moment[0] > last + 0.5)];
    this.paint();
  }

  /** The selected face was seen in another picture. */
  update(selected, head, now = false) {
    const face = selected.face;
    const at = head?.at;
    if (at && (!this.moments.length || at - this.moments.at(-1)[0] >= 0.95))
      this.moments.push([at, face.looks === "ok" ? face.label : null, face.share ?? 0]);
    if (!now && performance.now() - this.drawnAt < BARS_MS) return;
    this.drawnAt = performance.now();
    this.name.textContent = who(face) === "…" ? t("person") : who(face);
    const sure = face.looks === "ok" && face.label;
    const share = sure ? ` ${Math.round(100 * (face.share ?? 0))} %` : "";
    this.word.replaceChildren(make("i", "mark", "", { "data-label": sure ? face.label : "none" }), `${looks(face)}${share}`);
    this.bars.classList.toggle("unsure", !sure || !face.shares);
    for (const [index, row] of [...this.bars.children].entries()) {
      const part = sure && face.shares ? face.shares[index] : 0;
      row.children[1].firstChild.style.transform = `scaleX(${part})`;
      row.children[2].textContent = sure && face.shares ? `${Math.round(part * 100)}` : "–";
    }
    if (this.following && head) {
      const followed = head.selected === face.track;
      this.following.dataset.do = followed ? "unfollow" : "follow";
      this.following.onclick = () => window.mienAct(this.following.dataset.do);
      this.following.setAttribute("aria-pressed", String(followed));
      this.following.textContent = t(followed ? "following" : "follow");
    }
    if (this.naming) this.naming.hidden = face.who === "known";
    const subject = face.person !== null ? `person=${face.person}` : face.number !== null ? `unknown=${face.number}` : "";
    if (this.noting) this.noting.hidden = !subject; // nobody would find it again, nor could it be forgotten
    this.link.hidden = !subject || !SETUP.operator;
    this.link.href = `/history?${subject}`;
  }

  /** Clocks and chart, a few times a second. */
  tick(selected) {
    if (!selected || !this.since) return;
    const now = performance.now();
    const gone = now - selected.at > 1500;
    const seconds = (now - (gone ? selected.at : selected.since)) / 1000;
    const text = t(gone ? "out_of_sight" : "seen_for", { time: clock(seconds) });
    if (this.since.textContent !== text) this.since.textContent = text;
    this.element.classList.toggle("gone", gone);
    if (!this.painted || now - this.painted > 1000) this.paint();
  }

  paint() {
    if (!this.chart?.isConnected) return;
    this.painted = performance.now();
    const scale = window.devicePixelRatio || 1;
    const { width, height } = this.chart.getBoundingClientRect();
    if (!width) return;
    this.chart.width = Math.round(width * scale);
    this.chart.height = Math.round(height * scale);
    const context = this.chart.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.element);
    const [line, quiet] = [style.getPropertyValue("--line"), style.getPropertyValue("--quiet")];
    const end = Math.max(time(), this.moments.at(-1)?.[0] ?? 0);
    const begin = end - MINUTES * 60;
    const x = (at) => ((at - begin) / (end - begin)) * width;
    const room = height - 16;
    context.fillStyle = line;
    context.fillRect(0, room, width, 1);
    let assessed = 0;
    let seen = 0;
    const step = Math.max(1, width / (MINUTES * 60)) + 0.5;
    for (const [at, label, share] of this.moments) {
      if (at < begin) continue;
      seen += 1;
      if (label) {
        assessed += 1;
        const tall = Math.max(3, share * (room - 4));
        context.fillStyle = COLOURS[label];
        context.fillRect(x(at), room - tall, step, tall);
      } else {
        context.fillStyle = quiet;
        context.fillRect(x(at), room - 3, step, 2);
      }
    }
    context.fillStyle = quiet;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "bottom";
    context.fillText(`−${MINUTES}:00`, 0, height);
    context.textAlign = "right";
    context.fillText(t("now"), width, height);
    const share = seen ? Math.round((100 * assessed) / seen) : 0;
    this.coverage.textContent = seen ? t("assessed", { share }) : "";
    this.chart.setAttribute("aria-label", `${t("last_minutes", { count: MINUTES })}: ${this.coverage.textContent}`);
  }
}
