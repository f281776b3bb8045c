"use strict";

// Two photos, a point in one of them, and one or two towers with a layer each. Every picture is asked for anew when
// one of these changes; of several requests for a picture only the last counts.
const state = { photos: [null, null], names: ["", ""], point: null, size: 0, towers: [] };
const columns = [];
const byId = (id) => document.getElementById(id);

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({ error: answer.statusText }));
  throw new Error(told.error);
}

function complain(error) {
  if (error && error.name === "AbortError") return;
  byId("error").hidden = !error;
  byId("error").textContent = error ? error.message : "";
}

class Picture {
  constructor(parent, what) {
    this.what = what;
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

  clear(text) {
    this.abort?.abort();
    this.frame.classList.remove("busy");
    const empty = document.createElement("p");
    empty.className = "empty";
    empty.textContent = text;
    this.frame.replaceChildren(empty);
    this.link.hidden = true;
    this.text.textContent = this.what;
    this.key = null;
  }

  async show(path, name, click) {
    if (path === this.key) return;
    this.key = path;
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    this.frame.classList.add("busy");
    try {
      const answer = await ask(path, { signal: abort.signal });
      const cosine = answer.headers.get("X-Cosine");
      const url = URL.createObjectURL(await answer.blob());
      if (abort.signal.aborted) return URL.revokeObjectURL(url);
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = url;
      const image = new Image();
      image.src = url;
      image.alt = name;
      await image.decode();
      image.addEventListener("click", (event) => click(relative(event, image)));
      this.frame.replaceChildren(image);
      this.frame.dataset.path = path;
      this.link.href = url;
      this.link.download = `${name}.png`;
      this.link.hidden = false;
      this.text.textContent = cosine ? `${this.what}, cosine ${cosine}` : this.what;
      complain(null);
    } catch (error) {
      this.key = this.key === path ? null : this.key;
      complain(error);
    } finally {
      if (this.abort === abort) this.frame.classList.remove("busy");
    }
  }
}

// Where a click fell, as parts of the picture's width and height; the picture is fitted into its frame.
function relative(event, image) {
  const box = image.getBoundingClientRect();
  const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
  const x = (event.clientX - box.left - (box.width - width) / 2) / width;
  const y = (event.clientY - box.top - (box.height - height) / 2) / height;
  return x >= 0 && x < 1 && y >= 0 && y < 1 ? { x, y } : null;
}

function choose(number, place) {
  if (!place) return;
  state.point = { number, ...place };
  refresh();
}

function refresh() {
  const together = state.photos.filter(Boolean).join(" ");
  for (const column of columns) {
    const tower = state.towers[column.select.value];
    column.output.textContent = tower ? `${column.slider.value} of ${tower.layers - 1}` : "";
    column.slider.disabled = !tower;
    for (const number of [0, 1]) {
      const [colours, similar] = column.pictures[number];
      const photo = state.photos[number];
      if (!tower || !photo) {
        colours.clear("");
        similar.clear("");
        continue;
      }
      const layer = column.slider.value;
      const common = { tower: tower.name, layer, size: state.size, photo };
      const name = `${state.names[number]}_${tower.name}_layer${layer}`.replace(/[^\w.-]+/g, "_");
      const click = (place) => choose(number, place);
      colours.show(`colours?${new URLSearchParams({ ...common, together })}`, `${name}_pca`, click);
      const point = state.point;
      if (point && state.photos[point.number]) {
        const of = { source: state.photos[point.number], x: point.x.toFixed(5), y: point.y.toFixed(5) };
        similar.show(`similarity?${new URLSearchParams({ ...common, ...of })}`, `${name}_similarity`, click);
      } else {
        similar.clear("Click a point");
      }
    }
  }
}

function makeDrop(number) {
  const drop = byId(`drop-${number}`);
  drop.append(byId("drop-template").content.cloneNode(true));
  const input = drop.querySelector("input"), frame = drop.querySelector(".frame");
  const name = drop.querySelector(".name"), change = drop.querySelector(".change");

  async function take(file) {
    if (!file) return;
    frame.classList.add("busy");
    try {
      const answer = await ask("photo", { method: "POST", body: file });
      const { photo } = await answer.json();
      const image = new Image();
      image.src = `photo?photo=${photo}`;
      image.alt = file.name;
      await image.decode();
      image.addEventListener("click", (event) => { event.stopPropagation(); choose(number, relative(event, image)); });
      frame.replaceChildren(image);
      name.textContent = file.name;
      change.hidden = false;
      state.photos[number] = photo;
      state.names[number] = file.name.replace(/\.[^.]*$/, "");
      if (state.point?.number === number) state.point = null;
      complain(null);
      refresh();
    } catch (error) {
      complain(error);
    } finally {
      frame.classList.remove("busy");
    }
  }

  const open = () => input.click();
  change.addEventListener("click", (event) => { event.stopPropagation(); open(); });
  frame.addEventListener("click", () => { if (!state.photos[number]) open(); });
  drop.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target === drop) open(); });
  input.addEventListener("change", () => { take(input.files[0]); input.value = ""; });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files[0]);
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
  const told = await (await ask("describe")).json();
  state.towers = told.towers;
  const slider = byId("size");
  slider.min = told.smallest_size;
  slider.max = told.max_size;
  slider.value = Math.max(...told.towers.map((tower) => tower.size));
  const showSize = () => { byId("size-value").textContent = `${slider.value} px`; };
  slider.addEventListener("input", showSize);
  slider.addEventListener("change", () => { state.size = Number(slider.value); refresh(); });
  showSize();
  state.size = Number(slider.value);
  [0, 1].forEach(makeDrop);
  [0, 1].forEach(makeColumn);
  // A photo dropped beside a field would replace the page.
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  refresh();
}

start().catch(complain);
