"use strict";

// Two images, a point in one of them, and one or two backbones with a layer each. When one of these changes, every
// picture that depends on it is requested again, and its previous request is aborted.
const RETRIES = 20; // of a request that the server is too busy for
const state = { images: [null, null], names: ["", ""], point: null, size: 0, towers: [], maxBytes: 0 };
const columns = [], drops = [];
const byId = (id) => document.getElementById(id);

async function ask(path, options) {
  for (let retries = 0; ; retries++) {
    const response = await fetch(path, options);
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({ error: response.statusText }));
    if (response.status !== 503 || retries === RETRIES) throw new Error(error);
    await new Promise((resolve) => setTimeout(resolve, 1000)); // an abort meanwhile makes the next fetch throw
  }
}

function showError(error) {
  byId("error").hidden = !error;
  byId("error").textContent = error ? error.message : "";
}

class Picture {
  constructor(parent, title) {
    this.title = title;
    this.figure = document.createElement("figure");
    this.frame = document.createElement("div");
    this.frame.className = "frame";
    this.caption = document.createElement("figcaption");
    this.text = document.createElement("span");
    this.link = document.createElement("a");
    this.link.textContent = "Download";
    this.link.hidden = true;
    this.caption.append(this.text, this.link);
    this.figure.append(this.frame, this.caption);
    parent.append(this.figure);
    this.clear("");
  }

  clear(text, failed = false) {
    this.abort?.abort();
    setBusy(this.frame, false);
    const empty = document.createElement("p");
    empty.className = failed ? "empty failed" : "empty";
    empty.textContent = text;
    this.frame.replaceChildren(empty);
    delete this.frame.dataset.path;
    this.link.hidden = true;
    this.text.textContent = this.title;
    this.key = null;
  }

  async show(path, name, click) {
    if (path === this.key) return;
    this.key = path;
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    setBusy(this.frame, true);
    try {
      const response = await ask(path, { signal: abort.signal });
      const cosine = response.headers.get("X-Cosine");
      const url = URL.createObjectURL(await response.blob());
      if (abort.signal.aborted) return URL.revokeObjectURL(url);
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = url;
      await showImage(this.frame, url, name, click);
      this.frame.dataset.path = path;
      this.link.href = url;
      this.link.download = `${name}.png`;
      this.link.hidden = false;
      this.text.textContent = cosine ? `Cosine ${cosine}` : this.title;
    } catch (error) {
      if (error.name !== "AbortError" && this.key === path) this.clear(error.message, true);
    } finally {
      if (this.abort === abort) setBusy(this.frame, false);
    }
  }
}

function setBusy(frame, busy) {
  frame.classList.toggle("busy", busy);
  frame.setAttribute("aria-busy", busy);
}

// Fit an image into a frame; `click` is called with the place of a click as fractions of the image's width and height.
async function showImage(frame, url, alt, click) {
  const image = new Image();
  image.src = url;
  image.alt = alt;
  await image.decode();
  const fit = document.createElement("div");
  fit.className = image.naturalWidth * 3 > image.naturalHeight * 4 ? "fit wide" : "fit tall";
  fit.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
  fit.append(image);
  fit.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect();
    click({ x: clamp((event.clientX - box.left) / box.width), y: clamp((event.clientY - box.top) / box.height) });
  });
  frame.replaceChildren(fit);
  return fit;
}

function clamp(fraction) {
  return Math.min(Math.max(fraction, 0), 0.99999);
}

function choose(number, place) {
  state.point = { number, ...place };
  refresh();
}

// In a focused image the arrow keys move the point, with Shift in larger steps; Enter puts it at the center.
function movePoint(number, event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Enter: [0, 0] };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const [right, down] = steps[event.key];
  const from = state.point?.number === number && event.key !== "Enter" ? state.point : { x: 0.5, y: 0.5 };
  const step = event.shiftKey ? 1 / 8 : 1 / 64;
  choose(number, { x: clamp(from.x + right * step), y: clamp(from.y + down * step) });
}

// The first picture of each image: its request and its names.
function kindOfPicture(together) {
  const kind = byId("kind").value;
  if (kind === "colors") return { title: "Principal components", suffix: "pca", path: "colors", options: { together } };
  if (kind === "clusters") {
    const count = byId("clusters").value;
    return { title: `${count} clusters`, suffix: "clusters", path: "clusters", options: { together, count } };
  }
  const tau = byId("tau").value;
  const title = kind === "lost" ? "Object by LOST" : `Object by TokenCut, threshold ${tau}`;
  return { title, suffix: kind, path: "object", options: { algorithm: kind, tau: kind === "lost" ? 0 : tau } };
}

function makeKinds() {
  const showOptions = () => {
    byId("clusters-label").hidden = byId("kind").value !== "clusters";
    byId("tau-label").hidden = byId("kind").value !== "tokencut";
  };
  byId("kind").addEventListener("change", () => { showOptions(); refresh(); });
  for (const name of ["clusters", "tau"]) {
    const showValue = () => { byId(`${name}-value`).textContent = byId(name).value; };
    byId(name).addEventListener("input", showValue);
    byId(name).addEventListener("change", refresh);
    showValue();
  }
  showOptions();
}

function refresh() {
  drops.forEach((drop, number) => drop.mark(state.point?.number === number ? state.point : null));
  const together = state.images.filter(Boolean).join(" ");
  for (const column of columns) {
    const tower = state.towers[column.select.value];
    column.output.textContent = tower ? `${column.slider.value} of ${tower.layers - 1}` : "";
    column.slider.disabled = !tower;
    for (const number of [0, 1]) {
      const [colors, similar] = column.pictures[number];
      const image = state.images[number];
      if (!tower || !image) {
        colors.clear("");
        similar.clear("");
        continue;
      }
      const layer = column.slider.value;
      const common = { tower: tower.name, layer, size: state.size, image };
      const name = `${state.names[number]}_${tower.name}_layer${layer}`.replace(/[^\w.-]+/g, "_");
      const click = (place) => choose(number, place);
      const { title, suffix, path, options } = kindOfPicture(together);
      colors.title = title;
      colors.show(`${path}?${new URLSearchParams({ ...common, ...options })}`, `${name}_${suffix}`, click);
      const point = state.point;
      if (point && state.images[point.number]) {
        const query = { source: state.images[point.number], x: point.x.toFixed(5), y: point.y.toFixed(5) };
        similar.show(`similarity?${new URLSearchParams({ ...common, ...query })}`, `${name}_similarity`, click);
      } else {
        similar.clear("Click a point");
      }
    }
  }
  refreshWords();
}

function makeDrop(number) {
  const drop = byId(`drop-${number}`);
  drop.append(byId("drop-template").content.cloneNode(true));
  const input = drop.querySelector("input"), frame = drop.querySelector(".frame");
  const name = drop.querySelector(".name"), change = drop.querySelector(".change");
  const point = document.createElement("span");
  point.className = "point";

  async function upload(file) {
    if (!file) return;
    setBusy(frame, true);
    try {
      const limit = state.maxBytes / 2 ** 20, size = file.size / 2 ** 20;
      if (size > limit) {
        throw new Error(`${file.name} is ${size.toFixed(0)} MB; the limit is ${limit.toFixed(0)} MB`);
      }
      const { image } = await (await ask("image", { method: "POST", body: file })).json();
      const fit = await showImage(frame, `image?image=${image}`, file.name, (place) => choose(number, place));
      fit.tabIndex = 0;
      fit.addEventListener("keydown", (event) => movePoint(number, event));
      name.textContent = name.title = file.name;
      change.hidden = false;
      state.images[number] = image;
      state.names[number] = file.name.replace(/\.[^.]*$/, "");
      if (state.point?.number === number) state.point = null;
      showError(null);
      refresh();
    } catch (error) {
      showError(error);
    } finally {
      setBusy(frame, false);
    }
  }

  for (const button of drop.querySelectorAll("button")) button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => { upload(input.files[0]); input.value = ""; });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    upload(event.dataTransfer.files[0]);
  });
  drops.push({
    mark(place) {
      if (!place) return point.remove();
      point.style.left = `${100 * place.x}%`;
      point.style.top = `${100 * place.y}%`;
      frame.querySelector(".fit")?.append(point);
    },
  });
}

function makeColumn(number) {
  document.querySelector("main").append(byId("tower-template").content.cloneNode(true));
  const section = document.querySelector("main").lastElementChild;
  section.id = `tower-${number}`;
  const column = {
    select: section.querySelector("select"),
    slider: section.querySelector("input"),
    output: section.querySelector("output"),
  };
  state.towers.forEach((tower, index) => column.select.append(new Option(tower.name, index)));
  if (number) column.select.prepend(new Option("Compare with …", ""));
  column.select.value = number ? (state.towers.length > 1 ? "1" : "") : "0";
  const place = section.querySelector(".pictures");
  column.pictures = [0, 1].map(() => [new Picture(place, "Principal components"), new Picture(place, "Similarity")]);
  const reset = () => {
    const tower = state.towers[column.select.value];
    column.slider.value = column.slider.max = tower ? tower.layers - 1 : 0;
  };
  reset();
  column.select.addEventListener("change", () => { reset(); refresh(); });
  column.slider.addEventListener("input", refresh);
  columns.push(column);
}

async function start() {
  const limits = await (await ask("describe")).json();
  state.towers = limits.towers;
  state.maxBytes = limits.max_bytes;
  const slider = byId("size");
  slider.min = limits.min_size;
  slider.max = limits.max_size;
  slider.value = Math.max(...limits.towers.map((tower) => tower.size));
  const showSize = () => { byId("size-value").textContent = `${slider.value} px`; };
  slider.addEventListener("input", showSize);
  slider.addEventListener("change", () => { state.size = Number(slider.value); refresh(); });
  showSize();
  state.size = Number(slider.value);
  [0, 1].forEach(makeDrop);
  [0, 1].forEach(makeColumn);
  makeKinds();
  makeWords();
  // A file dropped beside a field would replace the page.
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  refresh();
}

start().catch(showError);
