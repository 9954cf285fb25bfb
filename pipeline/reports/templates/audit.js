"use strict";
// All texts come from the data of the page and are set as textContent: none of them is HTML.
const page = JSON.parse(document.getElementById("data").textContent);
const KINDS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array };
const SVG = "http://www.w3.org/2000/svg";
const LEVELS = 254;
const ROWS = 25;
const SHOWN = 17;  // letters of a path below a picture

function unpacked(array) {
  if (!array) return null;
  const text = atob(array.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new KINDS[array.kind](bytes.buffer);
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const whole = (number) => number.toLocaleString("en");
const counted = (number, word) => `${whole(number)} ${word}${number === 1 ? "" : "s"}`;
const percent = (share) => (100 * share).toFixed(1) + " %";
const imageOf = (picture) => "data:image/jpeg;base64," + page.images[picture.image];

// ---- frames: small pictures that open a dialog

function figureOf(picture) {
  const button = element("button");
  const image = element("img");
  image.src = imageOf(picture);
  image.alt = `${picture.path}, frame ${picture.frame}`;
  image.loading = "lazy";
  const [name, share] = picture.top[0];
  button.append(image, element("strong", name));
  button.append(element("small", `${percent(share)}, ${picture.nats.toFixed(2)} nats`));
  if (picture.other.length) {
    const [otherName, otherShare] = picture.other[0];
    button.append(element("small", `the other: ${otherName} ${percent(otherShare)}`));
  }
  if (picture.note) button.append(element("small", picture.note));
  const path = element("small", shortened(picture.path), "path");
  path.title = picture.path;
  button.append(path, element("small", `frame ${whole(picture.frame)}`));
  button.addEventListener("click", () => enlarge(picture));
  return button;
}

function shortened(path) {  // keeps the end, which tells videos of one folder apart
  const letters = [...path];
  return letters.length <= SHOWN ? path : "…" + letters.slice(1 - SHOWN).join("");
}

function enlarge(picture) {
  const dialog = document.getElementById("frame");
  const image = dialog.querySelector("img");
  image.src = imageOf(picture);
  image.alt = `${picture.path}, frame ${picture.frame}`;
  dialog.querySelector("p").textContent =
    `${picture.path}, frame ${whole(picture.frame)}: ${picture.nats.toFixed(3)} nats`
    + (picture.note ? ` (${picture.note})` : "");
  const rows = [...picture.top, ...picture.other].map(([name, share]) => row([name, percent(share)]));
  if (picture.other.length) rows.splice(picture.top.length, 0, row(["the other teacher", ""]));
  dialog.querySelector("tbody").replaceChildren(...rows);
  dialog.showModal();
}

function row(cells) {
  const made = element("tr");
  cells.forEach((cell, i) => made.append(element("td", cell, i ? "number" : "")));
  return made;
}

// ---- one teacher

class Teacher {
  constructor(data, section) {
    this.data = data;
    this.section = section;
    for (const name of ["frames", "clips", "videos", "classesLeft"]) this[name] = unpacked(data[name]);
    this.classes = Object.fromEntries(
      ["frames", "mean", "first", "bin", "count"].map((name) => [name, unpacked(data.classes[name])]));
    this.slider = this.find("threshold");
    this.slider.addEventListener("input", () => this.show());
    this.find("speed").addEventListener("input", () => delete this.find("speed").dataset.assumed);
    for (const name of ["epochs", "speed"])
      this.find(name).addEventListener("input", () => this.show());
    this.dragChart();
    this.find("copy").addEventListener("click", () => this.copy());
    this.sortBy = "frames";
    this.limit = ROWS;
    this.find("class-search").addEventListener("input", () => this.showClasses());
    this.find("class-sort").addEventListener("change", () => this.showClasses());
    this.find("class-more").addEventListener("click", () => {
      this.limit += 4 * ROWS;
      this.showClasses();
    });
    this.find("video-search").addEventListener("input", () => this.showVideos());
    this.find("video-order").addEventListener("change", () => this.showVideos());
    data.sheets.forEach((sheet, i) =>
      this.find(["most", "least", "outliers"][i])?.replaceChildren(...sheet.map(figureOf)));
    this.show();
    this.showVideos();
  }

  find(role) {
    return this.section.querySelector(`[data-role="${role}"]`);
  }

  get place() {  // of the threshold in the arrays, from 0
    return Number(this.slider.value) - 1;
  }

  get nats() {
    return Number(this.slider.value) * this.data.step;
  }

  dragChart() {
    const chart = this.find("chart");
    const move = (event) => {
      const box = chart.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      this.slider.value = Math.round(share * Number(this.slider.max));
      this.show();
    };
    chart.addEventListener("pointerdown", (event) => {
      chart.setPointerCapture(event.pointerId);
      move(event);
    });
    chart.addEventListener("pointermove", (event) => {
      if (chart.hasPointerCapture(event.pointerId)) move(event);
    });
  }

  show() {
    const i = this.place;
    const last = this.frames.length - 1;
    const share = (counts) => counts[i] / Math.max(1, counts[last]);
    const clips = this.clips ? this.clips[i] : null;
    this.write("nats", `${this.nats.toFixed(3)} nats`);
    this.write("kept-frames", `${whole(this.frames[i])} (${percent(share(this.frames))})`);
    this.write("kept-clips", clips === null ? "no clips" : percent(clips));
    this.write("kept-videos", `${whole(this.videos[i])} (${percent(share(this.videos))})`);
    this.write("lost-classes",
      `${whole(this.classesLeft[last] - this.classesLeft[i])} of ${whole(this.classesLeft[last])}`);
    this.write("hours", this.hoursSaved(clips));
    this.write("rate", this.rate());
    this.write("yaml", this.yaml(clips));
    this.slider.setAttribute("aria-valuetext",
      `${this.nats.toFixed(3)} nats keeps ${percent(share(this.frames))} of the frames`);
    this.moveMark();
    this.showClasses();
    this.showNear();
  }

  write(role, text) {
    this.find(role).textContent = text;
  }

  hoursSaved(clips) {
    const speed = Number(this.find("speed").value);
    const epochs = Number(this.find("epochs").value);
    if (clips === null || !(speed > 0) || !(epochs > 0)) return "give the two numbers below";
    const hours = (epochs * page.clip.clips_per_epoch * (1 - clips)) / speed / 3600;
    return hours < 1 ? `${(60 * hours).toFixed(1)} min` : `${hours.toFixed(1)} h`;
  }

  rate() {  // of distillation, and whether someone has set it
    const speed = this.find("speed");
    const assumed = "assumed" in speed.dataset ? ": set your own rate" : "";
    return speed.value ? `(at ${speed.value} clips/s${assumed})` : "";
  }

  yaml(clips) {
    const same = clips === null ? [] : [`      # about keep_fraction: ${clips.toPrecision(6)}`];
    const several = page.clip.k > 1 ? [`    k: ${page.clip.k}`] : [];
    return [
      "clip:", `  frames: ${page.clip.frames}`,
      "targets:", `  - teacher: ${JSON.stringify(this.data.id)}`, `    pick: ${page.clip.pick}`, ...several,
      "    filter:", ...same, `      max_entropy_nats: ${this.nats}`,
      "skip_filtered: true", "",
    ].join("\n");
  }

  async copy() {
    const text = this.find("yaml").textContent;
    try {
      await navigator.clipboard.writeText(text);
      this.write("copy", "copied");
    } catch {  // not allowed for pages from disk in some browsers: select it instead
      getSelection().selectAllChildren(this.find("yaml"));
      this.write("copy", "selected: press Ctrl-C");
    }
  }

  moveMark() {
    const x = (this.section.querySelector(".chart").viewBox.baseVal.width * Number(this.slider.value))
      / Number(this.slider.max);
    const mark = this.find("mark");
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
    this.find("kept-area").setAttribute("width", x);
  }

  // ---- classes

  keptOfClass(c) {  // at the threshold; rounded down where bins are merged
    const { first, bin, count } = this.classes;
    const end = Math.floor((this.place + 1) / this.data.classes.merged);
    let kept = 0;
    for (let k = first[c]; k < first[c + 1] && bin[k] < end; k++) kept += count[k];
    return kept;
  }

  showClasses() {
    const { names } = this.data.classes;
    const { frames, mean } = this.classes;
    const wanted = this.find("class-search").value.toLowerCase();
    const order = this.find("class-sort").value;
    const total = this.frames[this.frames.length - 1];
    let found = names.map((_, c) => c).filter((c) => names[c].toLowerCase().includes(wanted));
    if (order === "never") found = found.filter((c) => frames[c] === 0);
    else if (!wanted) found = found.filter((c) => frames[c] > 0);
    const kept = new Map(found.map((c) => [c, this.keptOfClass(c)]));
    const keys = {
      frames: (c) => -frames[c], rare: (c) => frames[c], sure: (c) => mean[c], unsure: (c) => -mean[c],
      kept: (c) => -kept.get(c), lost: (c) => kept.get(c) / Math.max(1, frames[c]), never: (c) => c,
    };
    found.sort((a, b) => keys[order](a) - keys[order](b) || a - b);
    const rows = found.slice(0, this.limit).map((c) => row([
      names[c], whole(frames[c]), percent(frames[c] / total),
      frames[c] ? mean[c].toFixed(2) : "", frames[c] ? percent(kept.get(c) / frames[c]) : "",
    ]));
    this.find("class-rows").replaceChildren(...rows);
    this.write("class-count", `${whole(found.length)} of ${whole(names.length)} classes`);
    this.find("class-more").classList.toggle("hidden", found.length <= this.limit);
  }

  showNear() {
    const target = this.find("near");
    if (!target || !this.data.near.length) return;
    const far = (picture) => Math.abs(picture.nats - this.nats);
    const videos = new Set();
    const nearest = [...this.data.near].sort((a, b) => far(a) - far(b)).filter((picture) =>
      videos.size < 8 && !videos.has(picture.path) && videos.add(picture.path));
    nearest.sort((a, b) => a.nats - b.nats);
    target.replaceChildren(...nearest.map(figureOf));
  }

  // ---- videos

  showVideos() {
    const wanted = this.find("video-search").value.toLowerCase();
    const order = this.find("video-order").value;
    const keys = { sure: (r) => r.mean, unsure: (r) => -r.mean, changing: (r) => -r.spread };
    const found = this.data.ribbons.filter((r) => r.path.toLowerCase().includes(wanted));
    found.sort((a, b) => keys[order](a) - keys[order](b) || (a.path < b.path ? -1 : 1));
    this.write("video-count", `${counted(found.length, "video")} found`);
    this.find("videos").replaceChildren(...found.slice(0, 8).map((r) => this.ribbon(r)));
  }

  ribbon(data) {
    const made = element("div", undefined, "ribbon");
    const name = element("div", data.path, "name");
    const cuts = data.cuts.length ? `, ${counted(data.cuts.length, "scene change")}` : "";
    name.append(element("small", `${counted(data.frames, "frame")}, mean ${data.mean.toFixed(2)} nats${cuts}`));
    const points = unpacked(data.points);
    const chart = svg("svg", { viewBox: `0 0 ${points.length} ${LEVELS}`, preserveAspectRatio: "none" });
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `entropy of ${data.path} over time, mean ${data.mean.toFixed(2)} nats`);
    let path = `M0 ${LEVELS}`;
    points.forEach((level, i) => {
      const y = LEVELS - Math.min(level, LEVELS);
      if (level <= LEVELS) path += `L${i} ${y}L${i + 1} ${y}`;
    });
    chart.append(svg("path", { d: `${path}L${points.length} ${LEVELS}Z` }));
    for (const cut of data.cuts) {
      const x = (points.length * cut) / Math.max(1, data.last);
      chart.append(svg("line", { x1: x, x2: x, y1: 0, y2: LEVELS }));
    }
    if (data.pictures.length) this.openPictures(chart, data);
    made.append(name, chart);
    return made;
  }

  openPictures(chart, data) {
    const nearest = (share) => data.pictures.reduce((best, picture) =>
      Math.abs(picture.frame - share * data.last) < Math.abs(best.frame - share * data.last)
        ? picture : best);
    chart.setAttribute("tabindex", "0");
    chart.setAttribute("role", "button");
    chart.style.cursor = "pointer";
    chart.addEventListener("click", (event) => {
      const box = chart.getBoundingClientRect();
      enlarge(nearest((event.clientX - box.left) / box.width));
    });
    chart.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        enlarge(nearest(0.5));
      }
    });
  }
}

for (const [i, section] of document.querySelectorAll("[data-teacher]").entries())
  new Teacher(page.teachers[i], section);
for (const [i, section] of document.querySelectorAll("[data-pair]").entries())
  ["only-first", "only-second"].forEach((role, side) => section.querySelector(`[data-role="${role}"]`)
    ?.replaceChildren(...page.pairs[i][side].map(figureOf)));
document.documentElement.dataset.ready = "yes";
